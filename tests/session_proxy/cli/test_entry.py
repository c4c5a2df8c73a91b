"""Ctrl-C while ``sproxy`` is still being imported."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

class Interrupting:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from session_proxy.cli.entry import main
main()
"""


def test_ctrl_c_while_it_is_imported_ends_it_quietly() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_what_it_ends_with_is_what_the_command_ends_with() -> None:
    program = "from session_proxy.cli.entry import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "nonsense"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert b"No such command" in done.stderr
