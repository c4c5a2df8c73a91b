"""The files that people write: their model, and one loader that reports every fault at once."""
