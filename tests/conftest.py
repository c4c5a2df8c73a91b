"""What all tests share.

Hypothesis neither times examples nor minds a busy machine that is slow to make them. Where a change is judged (``CI``),
a test that is skipped for want of a program has failed: ``.ci/run`` has to install it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# Whoever runs the tests may ignore signals, as nohup(1) does; the programs that we run would then, too.
for _signum, _handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, _handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail what is skipped for want of a program, where that must be there; kernels may refuse what they like."""
    report = yield
    if os.environ.get("CI") and report.skipped and "not installed" in str(report.longrepr):
        report.outcome = "failed"
    return report
