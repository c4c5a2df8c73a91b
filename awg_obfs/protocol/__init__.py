"""Obfuscation, Noise and the session machine: bytes in, bytes and events out. No sockets, clocks or randomness."""
