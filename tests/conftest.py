"""What all tests share: Hypothesis neither times examples nor minds a busy machine that is slow to make them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
