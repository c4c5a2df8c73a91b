"""One front door for SOCKS5 and HTTP, one route table, and supervised transports behind it."""
