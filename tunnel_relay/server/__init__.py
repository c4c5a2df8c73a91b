"""The relay itself: joins clients to their own agents."""
