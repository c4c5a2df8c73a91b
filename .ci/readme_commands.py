"""Print the ``sh`` blocks of a Markdown file, each followed by a NUL, so that CI can run them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)

if __name__ == "__main__":
    blocks: list[str] = BLOCK.findall(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if not blocks:
        sys.exit(f"{sys.argv[1]}: no sh block found")
    for block in blocks:
        sys.stdout.write(block + "\0")
