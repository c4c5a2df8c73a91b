"""What the relay decides: no I/O in here, and time and randomness are arguments."""
