"""From a contract file to checked, frozen data."""
