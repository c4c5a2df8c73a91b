"""Wire formats as pure values: bytes in, events out. No sockets, clocks or randomness."""
