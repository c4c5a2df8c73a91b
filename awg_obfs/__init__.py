"""Carry streams and datagrams as QUIC inside AmneziaWG sessions."""
