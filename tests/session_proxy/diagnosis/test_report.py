from __future__ import annotations

from session_proxy.diagnosis.report import Diagnosis, render, worst
from session_proxy.errors import ExitCode
from tunnel_relay.category import Category
from tunnel_relay.stages import Outcome, Stage, Step

GOOD = Stage(step=Step.NAMES, outcome=Outcome.OK, seconds=0.0123, found="one.example is 192.0.2.1")
ODD = Stage(
    step=Step.TLS, outcome=Outcome.WARNING, seconds=1.5, found="TLS 1.3", cause="it ends", fix="renew it"
)
NONE = Stage(step=Step.SSH, outcome=Outcome.SKIPPED, cause="after reach")


def bad(category: Category) -> Stage:
    return Stage(
        step=Step.REACH,
        outcome=Outcome.FAILED,
        seconds=2,
        found="half",
        cause="nobody there",
        fix="start it",
        category=category,
    )


def diagnosis(*stages: Stage, via: str = "") -> Diagnosis:
    return Diagnosis(name="dev", kind="relay", via=via, stages=stages)


def test_people_read_a_line_for_each_stage() -> None:
    assert render(diagnosis(GOOD, ODD, NONE)) == [
        "dev (relay): works, but",
        "  names          ok          12 ms  one.example is 192.0.2.1",
        "  tls            warning   1500 ms  TLS 1.3; it ends; renew it",
        "  ssh            skipped            after reach",
    ]
    assert render(diagnosis(bad(Category.NETWORK), NONE, via="i-1")) == [
        "dev (relay, i-1): does not work",
        "  reach          failed    2000 ms  nobody there; start it",
        "  ssh            skipped            after reach",
    ]
    assert render(diagnosis(NONE))[0] == "dev (relay): works"


def test_programs_read_all_of_it() -> None:
    assert diagnosis(bad(Category.SERVER), via="i-1").as_json() == {
        "name": "dev",
        "kind": "relay",
        "via": "i-1",
        "outcome": "failed",
        "stages": [
            {
                "stage": "reach",
                "outcome": "failed",
                "milliseconds": 2000.0,
                "found": "half",
                "cause": "nobody there",
                "fix": "start it",
                "category": "server",
            }
        ],
    }


def test_the_worst_decides_what_to_exit_with() -> None:
    network, authentication, configuration = (
        diagnosis(bad(each)) for each in (Category.NETWORK, Category.AUTHENTICATION, Category.CONFIGURATION)
    )
    assert worst([]) is ExitCode.OK
    assert worst([diagnosis(GOOD, ODD, NONE)]) is ExitCode.OK
    assert worst([network, diagnosis(GOOD)]) is ExitCode.UNREACHABLE
    assert worst([authentication, network]) is ExitCode.NOT_PERMITTED
    assert worst([network, configuration, authentication]) is ExitCode.CONFIGURATION
