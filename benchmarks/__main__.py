"""Run suites of benchmarks and print their tables: ``python -m benchmarks [SUITE…] [--rounds N] [--quick]``."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from benchmarks import awg, awg_udp, relay, ssm, suites
from benchmarks.arena import open_arena
from benchmarks.measures import QUICK, Scale
from benchmarks.report import as_json, as_markdown, show
from benchmarks.routing import routing
from benchmarks.tournament import Outcome

SUITES: dict[str, suites.Suite] = {
    "direct": suites.direct,
    "ssh": suites.ssh,
    "ssm": ssm.ssm,
    "relay-proxy": relay.proxying,
    "relay-library": relay.using,
    "relay-many": relay.many,
    "relay-faults": relay.faults,
    "awg-loopback": awg.loopback,
    "awg-sessions": awg.sessions,
    "awg-far": awg.far,
}
# Those that need no arena.
ALONE: dict[str, Callable[[Scale], Outcome]] = {
    "routing": routing,
    "awg-device": awg.device,
    "awg-session": awg_udp.session_layer,
}
GROUPS = {
    "relay": ["relay-proxy", "relay-library", "relay-many", "relay-faults"],
    "awg": ["awg-device", "awg-session", "awg-loopback", "awg-sessions", "awg-far"],
    "all": [*SUITES, *ALONE],
}
CHOICES = (*SUITES, *ALONE, *GROUPS)


async def run(name: str, scale: Scale) -> Outcome:
    """Run the suite *name* in a scratch folder and an arena of its own."""
    with tempfile.TemporaryDirectory(prefix="sproxy-bench-") as folder:
        async with open_arena() as arena:
            return await SUITES[name](arena, Path(folder), scale)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "suites", nargs="*", choices=[*CHOICES, []], default=["all"], metavar="SUITE", help=", ".join(CHOICES)
    )
    parser.add_argument("--rounds", type=int, help="how often every contestant is measured")
    parser.add_argument(
        "--quick", action="store_true", help="small and short: shows that it runs, not how fast"
    )
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file, for the documentation")
    return parser.parse_args()


def main() -> None:
    """Run what the command line asks for."""
    arguments = parse()
    scale = QUICK if arguments.quick else Scale()
    if arguments.rounds:
        scale = attrs.evolve(scale, rounds=arguments.rounds)
    # A thousand connections take two thousand descriptors in a proxy.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    chosen = dict.fromkeys(one for name in arguments.suites for one in GROUPS.get(name, [name]))
    outcomes: list[Outcome] = []
    for name in chosen:
        print(f"{name}:", file=sys.stderr)
        outcomes.append(ALONE[name](scale) if name in ALONE else trio.run(run, name, scale))
        show(outcomes[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(outcomes), indent=1) + "\n", encoding="utf-8")
    if arguments.markdown:
        tables = "\n\n".join(f"### {outcome.suite}\n\n{as_markdown(outcome)}" for outcome in outcomes)
        arguments.markdown.write_text(tables + "\n", encoding="utf-8")
    if any(outcome.failures for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    main()
