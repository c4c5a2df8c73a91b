"""The embedded world on loopback: an SSM gateway and agent, an SSH server and targets, for demo and tests."""
