"""What users are told to write, so that it is tested: see `session_proxy.lab.fixtures`."""

from session_proxy.lab.fixtures import lab_settings, world

__all__ = ["lab_settings", "world"]
