"""Streams from one seed have nothing in common."""

from itertools import product

import numpy as np

from bitsearch.core.seeds import derive


def test_streams_differ_for_every_seed_and_repetition() -> None:
    """Sums would give (1, 1) what they give (2, 0)."""
    assert derive(1, 1) != derive(2, 0)
    pairs = list(product(range(30), range(30)))
    assert len({derive(*pair) for pair in pairs}) == len(pairs)


def test_streams_are_those_that_numpy_spawns() -> None:
    children = np.random.SeedSequence(5).spawn(3)
    expected = [int(child.generate_state(1, np.uint64)[0]) >> 1 for child in children]
    assert [derive(5, index) for index in range(3)] == expected
    assert all(0 <= value < 2**63 for value in expected)
