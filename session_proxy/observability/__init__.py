"""Events turned into log lines, metrics, health and a PAC file."""
