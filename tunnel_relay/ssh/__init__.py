"""SSH over any Trio stream: paramiko's algorithms without its thread."""
