"""A run as one HTML page that needs no network, no script and no trust in what the run says."""
