"""The service shell: it runs a profile from its first listener to its last drained connection."""
