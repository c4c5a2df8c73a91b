"""QUIC over a path that a session already authenticates: the only place that imports aioquic and qh3."""
