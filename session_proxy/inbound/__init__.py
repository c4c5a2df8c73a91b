"""The front door: one port that speaks SOCKS5, SOCKS4 and HTTP, and joins clients to their destinations."""
