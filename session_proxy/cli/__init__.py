"""The ``sproxy`` command: parse, call, render."""
