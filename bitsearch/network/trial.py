"""The walk of a configuration, forward only: spec, train, export, measure, record."""

import time
from dataclasses import replace

from bitsearch.core.errors import CheckpointError, TrainingError
from bitsearch.core.measurement import Fidelity, Measurement, over_trainings
from bitsearch.core.strategy import Configuration
from bitsearch.network import measuring
from bitsearch.network.exporter import Exporter
from bitsearch.network.spec import Spec
from bitsearch.network.trainer import Trainer

GLANCE_SECONDS = 0.02
"""How long latencies are taken: beside other trainings they are hints, and the front is timed again."""


class Trial:
    """One spec with its trainer and exporter, which keep what all configurations share."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.trainer = Trainer(spec)
        self.exporter = Exporter(spec)

    def measure(
        self,
        configuration: Configuration,
        origin: str,
        fidelity: Fidelity = "finetuned",
        keep: str | None = None,
        repetitions: int | None = None,
    ) -> Measurement:
        """Train, export and measure; with `keep` the served file goes to `models/<keep>.onnx`.

        A final training is repeated as the preset says, or as often as `repetitions`; what is trained is not again.

        Candidates are measured on validation events, final trainings on test events. Whatever fails for this
        configuration alone gives a measurement that says why.

        Raises:
            OSError: files cannot be written, which would fail for every other configuration too.
            CheckpointError: what an earlier sitting left of its training is damaged.
        """
        began = time.monotonic()
        record = unmeasured(self.spec, configuration, origin, fidelity)
        try:
            return self._measured(record, keep, repetitions)
        except (OSError, CheckpointError):
            raise
        except TrainingError as error:
            reason = str(error)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
        return replace(record, failure=reason, train_seconds=time.monotonic() - began)

    def _measured(self, record: Measurement, keep: str | None, repetitions: int | None) -> Measurement:
        spec, configuration = self.spec, record.configuration
        if record.fidelity == "full":
            trainings = self.trainer.finally_train(configuration, repetitions)
            data = getattr(spec.data, "held_out", spec.data)
        else:
            trainings, data = [self.trainer.candidate(configuration)], spec.data
        networks = [item.network.cpu() for item in trainings]
        exported = [self.exporter.export_all(item, configuration, record.strategy) for item in networks]
        contents = [models[spec.task.served].SerializeToString() for models in exported]
        # A candidate is timed at one batch size alone: the largest would take a sixth of its trial.
        sizes = None if record.fidelity == "full" else 1
        return replace(
            record,
            metrics=over_trainings([measuring.metrics(spec, models, data) for models in exported]),
            train_seconds=sum(item.seconds for item in trainings),
            parity=measuring.parity(spec, exported[0], networks[0]),
            size_bytes=len(contents[0]),
            latency_us=measuring.latencies(spec, exported[0][spec.task.served], GLANCE_SECONDS, sizes=sizes),
            model=measuring.keep(spec, keep, record.digest, contents) if keep else None,
        )


def unmeasured(spec: Spec, configuration: Configuration, origin: str, fidelity: Fidelity) -> Measurement:
    """Begin the record of a configuration: what is known before it is trained."""
    inventory = spec.inventory(configuration.options)
    fractions = inventory.fractions(configuration.assignment)
    return Measurement(
        digest=configuration.digest,
        origin=origin,
        assignment={name: str(value) for name, value in configuration.assignment.items()},
        options=dict(configuration.options),
        fraction=fractions.fraction,
        weight_fraction=fractions.weight_fraction,
        executed_fraction=fractions.executed_fraction,
        fidelity=fidelity,
        seed=spec.seed,
        mean_bits=inventory.mean_bits(configuration.assignment) if spec.counts_bits else None,
    )
