"""Decisions as pure functions: which rule, which upstream, which link. No I/O."""
