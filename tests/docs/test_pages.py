"""What the pages say is held against the program: profiles load, commands parse, links lead somewhere."""

from __future__ import annotations

import ast
import json
import re
import shlex
from pathlib import Path

import attrs
import pytest
import typer.core
import typer.main

from awg_obfs.protocol.keys import key_to_text
from session_proxy.cli.main import app
from session_proxy.errors import ProfileError
from session_proxy.profile.awg_loading import load_awg_client, load_awg_server
from session_proxy.profile.loading import load_profile
from session_proxy.profile.relay_loading import load_relay_agent, load_relay_server
from tests.support.relay_files import write_what_files_name

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LOADERS = {
    "profile": load_profile,
    "server": load_awg_server,
    "client": load_awg_client,
    "relay": load_relay_server,
    "agent": load_relay_agent,
}
KEY = key_to_text(bytes(range(32)))
LINK = re.compile(r"\[[^]]+\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^\$ (?:\S+=\S+ )*(sproxy [^|>&#\n]*)", re.MULTILINE)


@attrs.frozen
class Block:
    """A fenced block of a page."""

    page: str
    number: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}-{self.number}-{self.language}"


def blocks(*languages: str) -> list[Block]:
    return [
        Block(page.name, number, match[1], match[2])
        for page in PAGES
        for number, match in enumerate(FENCE.finditer(page.read_text(encoding="utf-8")))
        if match[1] in languages
    ]


def commands() -> list[str]:
    """Return every sproxy command that a page shows."""
    shown = [match[1] for block in blocks("console") for match in COMMAND.finditer(block.text)]
    return list(dict.fromkeys(shown))


@pytest.mark.parametrize("block", blocks("toml", "yaml"), ids=str)
def test_profiles_in_pages_load(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A block that is no profile says in its first line which file it is.
    named = re.match(r"# (server|client|relay|agent)\.toml\n", block.text)
    load = LOADERS[named[1] if named else "profile"]
    write_what_files_name(tmp_path)
    file = tmp_path / f"profile.{block.language}"
    # A unit of systemd makes that folder.
    file.write_text(block.text.replace("/var/lib/session-proxy", str(tmp_path)))
    environ = dict.fromkeys(("SPROXY_PASS", "KEY_PASS", "SOCKS_PASS"), "x")
    try:
        environ = {**environ, "AWG_KEY": KEY, "AWG_PSK": KEY, "REDIS_URL": "redis://127.0.0.1"}
        load(file, environ={**environ, "HOME": str(tmp_path)})
    except ProfileError as error:
        # A page may show routes without the upstreams that they lead to.
        problems = [p for p in error.problems if not re.search(r"\.upstream(\[\d+\])?$|^default$", p.path)]
        assert not problems


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_in_pages_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_in_pages_is_python(block: Block) -> None:
    ast.parse(block.text)


@pytest.mark.parametrize("command", commands())
def test_commands_in_pages_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    if words and words[0].startswith("-"):
        return
    while isinstance(chosen := group.commands[words[0]], typer.core.TyperGroup):
        group, words = chosen, words[1:]
    chosen.make_context(words[0], words[1:]).close()


def links() -> list[tuple[str, str]]:
    return [
        (str(page.relative_to(ROOT)), link)
        for page in PAGES
        for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
        if not re.match(r"https?:|#", link)
    ]


@pytest.mark.parametrize(("page", "link"), links())
def test_links_lead_to_files(page: str, link: str) -> None:
    assert (ROOT / page).parent.joinpath(link.partition("#")[0]).exists()


def templates() -> str:
    """Return every string of the source, each with … where a value goes, one per line."""
    found: list[str] = []
    for package in ("session_proxy", "awg_obfs", "tunnel_relay"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(re.sub(r"{\w*}", "…", node.value))
    return "\n".join(found)


def error_texts() -> list[str]:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"^### `(.+)`$", page, re.MULTILINE)


SOURCE = templates()


@pytest.mark.parametrize("text", error_texts())
def test_error_texts_are_those_of_the_program(text: str) -> None:
    assert text in SOURCE
