from __future__ import annotations

from awg_obfs.protocol.parameters import parameters_from_mapping
from benchmarks.awg_device import CASES, measure_device


def test_every_case_runs_and_gives_figures() -> None:
    for values in CASES.values():
        figures = measure_device(parameters_from_mapping(values), rounds=1)
        assert min(figures.seal, figures.open, figures.handshake, figures.decoys) > 0
        assert figures.sealed_and_opened > 0
