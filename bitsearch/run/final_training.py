"""The final training: every strategy, and what the search has found to hold against them, for longer."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import product

from bitsearch.core import signals
from bitsearch.core.measurement import Measurement
from bitsearch.core.strategy import Configuration
from bitsearch.network import workers
from bitsearch.run import finals
from bitsearch.run.context import Context
from bitsearch.run.search import search
from bitsearch.run.study import Study


@dataclass
class Repeated:
    """The float networks that repeated trainings start from, so that spreads are those of seeds."""

    run: Context
    trained: dict[tuple[tuple[str, ...], int], "Future[None]"] = field(default_factory=dict)

    def train(self, executor: Executor, chosen: Iterable[Configuration]) -> None:
        """Begin those that these configurations need and no others have."""
        recipes = self.run.spec.task.recipes
        if recipes.final.scratch or not recipes.independent:
            return
        for configuration, repetition in product(chosen, range(1, recipes.repetitions)):
            options = dict(configuration.options)
            key = tuple(options.values()), repetition
            if key not in self.trained:
                self.trained[key] = executor.submit(workers.reference, options, repetition)

    def wait(self) -> None:
        """Wait until all that were begun are trained."""
        for reference in as_completed(self.trained.values()):
            reference.result()


def train_finalists(
    run: Context, executor: Executor, study: Study, references: Repeated
) -> list[Measurement]:
    """Train every strategy and those that are held against them for longer, and keep their files."""
    results = run.results("finetuned")
    rungs = {item.digest for item in results.values() if item.origin == "ladder"}
    baseline = run.space.strategies[0].configuration.digest
    handmade = [results[digest].reduction for digest in run.origins if digest in results]
    # Of many single trainings the luckiest would be chosen: it is the model of them all that chooses.
    searched = [
        item
        for digest, item in study.smoothed(results.values()).items()
        if digest not in run.origins
        and study.allows(item.configuration)
        and run.request.limits.keeps(results[digest], results.get(baseline), run.objective)
    ]
    limit = run.planned - len(run.space.strategies)
    challengers = finals.choose(searched, handmade, run.objective, limit)
    chosen = [item.configuration for item in run.space.strategies]
    chosen += [item.configuration for item in challengers]
    done = {digest: item for digest, item in run.results("full").items() if run.folder.model_file(item)}
    names = {item.configuration.digest: item.name for item in run.space.strategies}
    digests = [configuration.digest for configuration in chosen]
    missing = [item for item in chosen if item.digest not in done]
    run.forecast.resume(1 - len(missing) / len(chosen), len(chosen) / run.planned)
    if missing:
        run.terminal.say("float references of repeated trainings")
        references.train(executor, missing)
    references.wait()

    if missing and run.request.storage:
        # No race: runs that share a study would have to agree on who is out.
        _share_finals(run, executor, missing, done, rungs)
        missing = []

    def train(items: list[Configuration], once: bool) -> None:
        def submit() -> Iterator[Future[Measurement]]:
            for item in items:
                origin = run.origins.get(item.digest, "ladder" if item.digest in rungs else "final")
                name = names.get(item.digest, item.digest)
                repetitions = 1 if once and item.digest not in names else None
                yield executor.submit(workers.measure, item, origin, "full", name, repetitions)

        for future in run.reported(submit(), len(items), "finally trained", len(chosen)):
            run.folder.append(future.result())
            done[future.result().digest] = future.result()

    # A race: challengers whose first training is already beaten are not trained again.
    train(missing, once=True)
    trained = [done[digest] for digest in digests if not done[digest].failure]
    strategies = [item for item in trained if item.digest in names]
    hopeless = finals.hopeless(trained, strategies, run.objective)
    repetitions = run.spec.task.recipes.repetitions
    again = [
        item.configuration
        for item in trained
        if item.digest not in hopeless and len(item.metrics[run.objective.name].values) < repetitions
    ]
    train(again, once=False)
    return [
        done[item.digest]
        for item in trained
        if item.digest not in hopeless and run.folder.model_file(done[item.digest])
    ]


def _share_finals(
    run: Context,
    executor: Executor,
    missing: list[Configuration],
    done: dict[str, Measurement],
    rungs: set[str],
) -> None:
    """Train finalists together with the other runs of the storage: their study is beside that of the search."""
    kinds = {item.digest: "ladder" if item.digest in rungs else "final" for item in missing}

    whole = len(done) + len(missing)

    def record(measurement: Measurement) -> None:
        run.folder.append(measurement)
        share = min(1.0, len(done) / whole)
        run.forecast.advance(share)
        run.terminal.step(f"{len(done)}/{whole} finally trained", share, run.forecast.seconds)

    with closing(run.open_study("-finals")) as study:
        study.recover(done)
        search(
            study,
            workers.finally_train,
            0,
            done,
            record,
            kinds | run.origins,
            executor,
            run.count,
            signals.going_on,
            partial(workers.give_up, run.spec, fidelity="full"),
            run.sharing.gather,
            {item.digest: item for item in missing},
        )
