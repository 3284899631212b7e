"""One run of a study that several runs share, with a measure that costs nothing.

    python shared_study.py STORAGE FOLDER TRIALS SECONDS WORKERS

FOLDER is the run's own: `begun` has a line for every measurement that began, `results.jsonl` what the run knows.
"""

import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bitsearch.core.measurement import Measurement, Metric, Quantity
from bitsearch.core.space import Group, SearchSpace
from bitsearch.core.strategy import Configuration
from bitsearch.run.leases import Lease
from bitsearch.run.search import search
from bitsearch.run.study import Study

NLL = Metric("nll", "NLL", "nats", "minimize", "made up")
LAYERS = tuple(f"l{index}" for index in range(12))
SPACE = SearchSpace(
    LAYERS, tuple(Group(name, (name,), "") for name in LAYERS), {"permutation": ("random", "exchange")}, ()
)
SEEDS = [SPACE.configuration(LAYERS[:count], {"permutation": "random"}) for count in range(5)]


def made_up(configuration: Configuration, origin: str) -> Measurement:
    share = len(configuration.assignment.quantized) / len(LAYERS)
    failure = "made to fail" if "l11" in configuration.assignment.quantized and share < 0.3 else None
    return Measurement(
        configuration.digest,
        origin,
        {name: str(value) for name, value in configuration.assignment.items()},
        dict(configuration.options),
        share,
        share,
        share,
        "finetuned",
        1,
        {} if failure else {"nll": Quantity(share**2)},
        failure=failure,
    )


def open_study(storage: str, folder: Path) -> Study:
    return Study.open(
        SPACE, NLL, storage, "study", 1, lease=Lease(folder.name, str(folder), beat=0.2, grace=3)
    )


def add_line(file: Path, line: str) -> None:
    with file.open("a") as stream:
        stream.write(line + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read(file: Path) -> list[str]:
    """Give the whole lines of a file."""
    return file.read_text().split("\n")[:-1] if file.is_file() else []


def main(storage: str, folder: Path, trials: int, seconds: float, workers: int) -> None:
    folder.mkdir(exist_ok=True)

    def measure(configuration: Configuration, origin: str) -> Measurement:
        add_line(folder / "begun", configuration.digest)
        time.sleep(random.uniform(0.5, 1.5) * seconds)
        return made_up(configuration, origin)

    known = [Measurement.from_json(line) for line in read(folder / "results.jsonl")]
    results = {item.digest: item for item in known}
    study = open_study(storage, folder)
    study.recover(results)
    study.enqueue(SEEDS)
    with ThreadPoolExecutor(workers) as executor:
        search(
            study,
            measure,
            trials,
            results,
            lambda measurement: add_line(folder / "results.jsonl", measurement.to_json()),
            {},
            executor if workers > 1 else None,
            workers,
        )
    study.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
