"""What to train: which values identify it, and what another process is sent."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Bench

from bitsearch.network.spec import Spec, silent


def test_repetitions_of_neighbouring_seeds_share_no_weights(bench: Bench) -> None:
    options = {"permutation": "random"}
    one = dataclasses.replace(bench.spec, seed=1).network(options, 1).state_dict()
    two = dataclasses.replace(bench.spec, seed=2).network(options, 0).state_dict()
    weights = [name for name in one if name.endswith("layers.0.weight")]
    assert weights
    assert not any(torch.equal(one[name], two[name]) for name in weights)


def test_can_be_sent_to_another_process(bench: Bench) -> None:
    watched = dataclasses.replace(bench.spec, progress=lambda _text, _share: None)
    vars(watched).update(data=bench.spec.data)
    sent: Spec = pickle.loads(pickle.dumps(watched))
    assert "data" not in vars(sent)
    assert sent == bench.spec
    assert sent.progress is silent


@pytest.mark.parametrize("change", [{"seed": 2}, {"preset": "laptop"}], ids=str)
def test_identity_covers_what_values_depend_on(bench: Bench, change: dict[str, Any]) -> None:
    now = dataclasses.replace(bench.spec, **change).identity
    differing = {name for name, value in bench.spec.identity.items() if now[name] != value}
    assert differing >= set(change)


def test_identity_is_content_not_place(bench: Bench, tmp_path: Path) -> None:
    (moved,) = (tmp_path / "moved.h5",)
    moved.write_bytes(bench.spec.paths[0].read_bytes())
    elsewhere = dataclasses.replace(bench.spec, folder=Path("elsewhere"), threads=7, paths=(moved,))
    assert elsewhere.identity == bench.spec.identity
