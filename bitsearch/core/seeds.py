"""Independent streams of random numbers from one seed."""

import numpy as np


def derive(seed: int, *path: int) -> int:
    """Give the seed of the stream that `path` names among those of `seed`, from 0 to 2⁶³ - 1.

    As numpy's SeedSequence spawns them: no sums, so (1, 1) and (2, 0) have nothing in common.
    """
    state = np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
