"""Every graph is traced once, for all configurations and all processes."""

from itertools import product

import pytest
from conftest import Bench


def test_references_and_traces_are_made_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    work = bench.spec.folder / "work"
    before = {path: path.stat().st_mtime_ns for path in work.glob("trace-*")}
    assert len(before) == 4
    monkeypatch.setattr("bitsearch.network.export.trace", None)
    for choice, graph in product(bench.space.options["permutation"], bench.spec.graphs):
        bench.trial.exporter.template({"permutation": choice}, graph)
        bench.trial.trainer.reference({"permutation": choice})
    assert {path: path.stat().st_mtime_ns for path in work.glob("trace-*")} == before
