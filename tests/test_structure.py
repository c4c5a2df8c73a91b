"""The structure that the design promises, checked: twins, small files, typed packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("session_proxy", "awg_obfs", "tunnel_relay")
LONGEST_FILE = 400

# Files without a test of their own, and what tests them instead.
TWINLESS = {
    "awg_obfs/paths.py": "an interface; test_endpoint.py checks it",
    "awg_obfs/quic/engine.py": "values and an interface; test_aioquic_engine.py and test_qh3_engine.py check it",
    "awg_obfs/quic/settings.py": "values without behaviour",
    "session_proxy/events.py": "values without behaviour",
    "tunnel_relay/dial_events.py": "values without behaviour",
    "tunnel_relay/dialing_end.py": "an interface; test_far_end.py and test_reaching.py check it",
    "tunnel_relay/errors.py": "values without behaviour",
    "session_proxy/outbound/transport.py": "an interface; every transport's test checks it",
    "session_proxy/outbound/links.py": "an interface; test_ssh_pool.py and test_port_pool.py check it",
    "session_proxy/ssm/errors.py": "values without behaviour",
    "session_proxy/ssm/session.py": "values and an interface",
    "tunnel_relay/protocol/upgrade.py": "values without behaviour",
    "tunnel_relay/server/events.py": "values without behaviour",
    "tunnel_relay/protocol/ssh_numbers.py": "values without behaviour",
    "tunnel_relay/splicing.py": "an interface; test_receiving.py and test_sending.py check it",
    "tunnel_relay/ssh/settings.py": "values without behaviour",
}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (path.relative_to(ROOT) for path in sorted((ROOT / package).rglob("*.py")))


@pytest.mark.parametrize("source", [str(path) for path in sources() if path.name != "__init__.py"])
def test_every_source_file_has_a_twin_among_the_tests(source: str) -> None:
    path = Path(source)
    twin = ROOT / "tests" / path.parent / f"test_{path.name}"
    assert twin.exists() != (source in TWINLESS), f"{twin.relative_to(ROOT)} is the place for its tests"


@pytest.mark.parametrize("source", [str(path) for path in sources()])
def test_a_file_has_one_subject_and_says_it(source: str) -> None:
    text = (ROOT / source).read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a file opens with what it is about"
    assert text.count("\n") <= LONGEST_FILE, "split it: it has two subjects"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_carry_their_types(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
