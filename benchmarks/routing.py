"""The route table against a scan of the same rules in file order, in one interleaved run."""

from __future__ import annotations

import ipaddress
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import attrs

from benchmarks.measures import Figure, Scale
from benchmarks.tournament import Outcome, Row
from session_proxy.policy.route_table import RouteTable
from session_proxy.policy.rules import Rule, matches
from session_proxy.target import Target

# A scan of 20 000 rules takes tens of milliseconds; so many of them show it.
SCANNED = 8

GROUPS = 8

Decide = Callable[[Target], str]


@attrs.frozen
class Workload:
    """Targets of one kind, to be decided by rules of a given number."""

    name: str
    rules: Sequence[Rule]
    targets: Sequence[Target]


def routing(scale: Scale) -> Outcome:
    """Measure decisions by table and by scan; fails where they differ."""
    rows: list[Row] = []
    failures: list[str] = []
    figure = Figure("decision", "µs", digits=2)
    for workload in _workloads():
        table = RouteTable.build(workload.rules, "direct")
        contestants: dict[str, tuple[Decide, Sequence[Target]]] = {
            "route table": (lambda target, table=table: table.decide(target).rule, workload.targets),
            "linear scan": (
                lambda target, rules=workload.rules: _scan(rules, target),
                workload.targets[:SCANNED],
            ),
        }
        samples: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(scale.rounds):
            print(f"  {workload.name}, round {turn + 1}", file=sys.stderr, flush=True)
            for name, (decide, targets) in contestants.items():
                samples[name].append(_microseconds(decide, targets))
        rows.append(Row(workload.name, figure, samples))
        failures += [
            f"{workload.name}: table and scan differ about {target}"
            for target in workload.targets[:SCANNED]
            if table.decide(target).rule != _scan(workload.rules, target)
        ]
    return Outcome(
        suite="routing",
        subject="linear scan",
        peers=("route table",),
        rows=tuple(rows),
        failures=tuple(failures),
    )


def _workloads() -> list[Workload]:
    # Seeded: every run, and every machine, decides the same targets.
    rng = random.Random(20_000)
    few, many = _rules(rng, 100), _rules(rng, 10_000)
    names = [_name(rng.randrange(10_000)) for _ in range(1000)]
    v4 = [str(ipaddress.IPv4Address(0x0A000000 | rng.getrandbits(24))) for _ in range(1000)]
    v6 = [str(ipaddress.IPv6Address(0x20010DB8 << 96 | rng.getrandbits(96))) for _ in range(1000)]
    deep = [".".join(["a"] * 100 + [name]) for name in names]
    return [
        Workload(f"{label}, {len(rules):,} rules", rules, [Target.of(host, 443) for host in hosts])
        for label, rules, hosts in (
            ("name", few, names),
            ("name", many, names),
            ("name of 100 labels", many, deep),
            ("name that nothing matches", many, [f"{name}.invalid" for name in names]),
            ("IPv4", few, v4),
            ("IPv4", many, v4),
            ("IPv6", many, v6),
        )
    ]


def _rules(rng: random.Random, each: int) -> list[Rule]:
    """Return so many networks and so many names, mixed; some of each are for a few ports only."""
    networks = [
        ipaddress.ip_network((0x0A000000 | rng.getrandbits(24), rng.randint(20, 32)), strict=False)
        if rng.random() < 0.8
        else ipaddress.ip_network(
            (0x20010DB8 << 96 | rng.getrandbits(96), rng.randint(33, 128)), strict=False
        )
        for _ in range(each)
    ]
    texts = [*map(str, networks), *(f"*.{_name(i)}" if i % 4 == 3 else _name(i) for i in range(each))]
    rng.shuffle(texts)
    return [
        Rule.of(text, "direct", ["443", "8000-8999"] if i % 5 == 0 else []) for i, text in enumerate(texts)
    ]


def _name(number: int) -> str:
    return ".".join([f"h{number}", *("prod", "eu", "west")[: number % 4], "internal"])


def _scan(rules: Sequence[Rule], target: Target) -> str:
    for index, rule in enumerate(rules):
        if rule.ports is not None and not rule.ports.contains(target.port):
            continue
        if any(matches(match, target) for match in rule.match):
            return f"routes[{index}]"
    return "default"


def _microseconds(decide: Decide, targets: Sequence[Target]) -> float:
    """Return what one decision takes, as the median over a few groups: a busy machine slows some of them."""
    groups = [targets[start::GROUPS] for start in range(GROUPS)]
    return statistics.median(_mean(decide, group) for group in groups if group)


def _mean(decide: Decide, targets: Sequence[Target]) -> float:
    # Targets remember what they are; every connection brings a new one.
    fresh = [Target(target.host, target.port) for target in targets]
    started = time.perf_counter()
    for target in fresh:
        decide(target)
    return (time.perf_counter() - started) / len(fresh) * 1e6
