"""Runs JavaScript in whichever engine is there: Node.js, or a headless Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def run_javascript(script: str, expression: str) -> object:
    """Return the value of *expression* after *script*, by way of JSON; skips where there is no engine."""
    if shutil.which("node"):
        return run_in_node(script, expression)
    return run_in_chromium(script, expression)


def run_in_node(script: str, expression: str) -> object:
    """Return the value of *expression* after *script*, in Node.js."""
    program = f"{script}\nprocess.stdout.write(JSON.stringify({expression}));"
    done = subprocess.run(
        ["node", "-"], input=program, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_in_chromium(script: str, expression: str) -> object:
    """Return the value of *expression* after *script*, in a headless Chromium."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("neither Node.js nor Chromium is installed")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(
            f"<!doctype html><meta charset=utf-8><pre id=out></pre><script>{script}\n"
            f"document.getElementById('out').textContent = JSON.stringify({expression});</script>",
            encoding="utf-8",
        )
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/data"]
        done = subprocess.run(
            [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120, check=False
        )
    found = re.search(r'<pre id="out">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(html.unescape(found[1]))
