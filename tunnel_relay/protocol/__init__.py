"""Bytes in, values out: pure codecs without I/O, clock or randomness."""
