"""What is timed, and what is compared with others."""
