"""What was found: runs are written, read back with distrust, and shown as functions of them."""
