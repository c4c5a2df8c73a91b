"""All that a file names is examined at once, and what it warns of goes to where it belongs."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from session_proxy.diagnosis.course import Setting
from session_proxy.diagnosis.examination import (
    Case,
    cases_of,
    examine,
    file_diagnosis,
    refused_file,
    warnings_about,
)
from session_proxy.diagnosis.report import Diagnosis
from session_proxy.errors import Problem, ProfileError
from session_proxy.lab.fixtures import lab_settings, world
from session_proxy.lab.world import World
from session_proxy.outbound.transport import Services
from session_proxy.profile.loading import load_profile
from session_proxy.profile.relay_loading import load_relay_server
from tests.support.examined import examined
from tests.support.relay_daemon import write_relay
from tests.support.stages import outcomes
from tunnel_relay.stages import Step

__all__ = ["lab_settings", "world"]


async def test_the_whole_lab(world: World) -> None:
    environ = {**world.environ, "HOME": str(world.directory)}
    profile = load_profile(world.profile, environ=environ)
    found = await examined(profile, environ)

    assert [(each.name, each.kind) for each in found] == [
        ("ssh", "ssh"),
        ("ssm", "ssm"),
        ("ssm", "ssm"),
        ("ssm-port", "ssm-port"),
        ("ssm-port", "ssm-port"),
        ("awg", "awg"),
        ("relay", "relay"),
    ]
    assert [each.exit_code for each in found] == [0] * 7, found
    assert found[1].via == "i-0123456789abcdef0"


def case(name: str, seconds: float) -> Case:
    async def work(setting: Setting) -> None:
        with setting.course.stage(Step.REACH):
            await trio.sleep(seconds)
            if name == "bad":
                raise OSError(5, "broken")

    return Case(name=name, kind="ssh", steps=(Step.CONFIGURATION, Step.REACH, Step.SSH), work=work)


async def test_one_failure_stops_nobody_else(autojump_clock: MockClock) -> None:
    told: list[Diagnosis] = []
    cases = [case("slow", 9), case("bad", 5), case("quick", 1), case("stuck", 99)]
    warnings = ["p.toml: upstreams.slow.ssh: is odd; mend it", "p.toml: listen: is odd"]
    began = trio.current_time()
    found = await examine(cases, Services(), Path(), warnings=warnings, tell=told.append)

    assert trio.current_time() - began == 10
    assert [each.name for each in found] == ["slow", "bad", "quick", "stuck"]
    assert [each.name for each in told] == ["quick", "bad", "slow", "stuck"]
    assert outcomes(found[0].stages)["configuration"] == "warning"
    assert (found[0].stages[0].cause, found[0].stages[0].fix) == ("upstreams.slow.ssh: is odd", "mend it")
    assert outcomes(found[1].stages) == {"configuration": "ok", "reach": "failed", "ssh": "skipped"}
    assert found[3].stages[1].cause == "not done within 10 s"


def test_servers_connect_to_nothing(tmp_path: Path) -> None:
    server = load_relay_server(write_relay(tmp_path), environ={"HOME": str(tmp_path)})

    [found] = cases_of(server, None)
    assert found.steps == (Step.CONFIGURATION, Step.CREDENTIALS)


def test_a_warning_belongs_to_the_upstream_that_it_names() -> None:
    warnings = ["f: upstreams.a.token: old", "f: upstreams.ab.token: older", "f: listen: odd"]

    assert warnings_about("a", warnings) == ["upstreams.a.token: old"]
    assert warnings_about("b", warnings) == []


@pytest.mark.parametrize("file", [Path("p.toml"), None])
def test_files(file: Path | None) -> None:
    good = file_diagnosis(file, 0.5, [], "two ways")
    assert (good.name, good.outcome, good.stages[0].found) == (str(file or "profile"), "ok", "two ways")
    odd = file_diagnosis(file, 0.5, ["a; b", "c"], "two ways")
    assert (odd.outcome, odd.stages[0].cause, odd.stages[0].fix) == ("warning", "a; also, c", "b")
    problems = [Problem("listen", "is odd", "mend it"), Problem("", "there is no profile", "write one")]
    bad = refused_file(ProfileError(file, problems), 0.5)
    assert [(stage.cause, stage.fix) for stage in bad.stages] == [
        ("listen: is odd", "mend it"),
        ("there is no profile", "write one"),
    ]
    assert bad.exit_code == 78
