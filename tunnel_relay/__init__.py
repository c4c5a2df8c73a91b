"""Reach machines through SSH and WebSockets, over any Trio stream."""
