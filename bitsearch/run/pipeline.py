"""`bitsearch run`: data, float references, baselines and search, final training, evaluation, report."""

import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

from bitsearch import report
from bitsearch.core import signals
from bitsearch.core.errors import RecordError
from bitsearch.core.front import Front
from bitsearch.core.manifest import Pulse
from bitsearch.core.measurement import Measurement
from bitsearch.core.rundir import RunFolder
from bitsearch.core.space import SearchSpace
from bitsearch.network import measuring, sensitivity, workers
from bitsearch.network.trainer import Trainer
from bitsearch.run import begin
from bitsearch.run.context import Context
from bitsearch.run.final_training import Repeated, train_finalists
from bitsearch.run.plan import EVALUATION, FINALS, LATENCY, REFERENCES, REPORT, SEARCH, Plan
from bitsearch.run.request import RunRequest
from bitsearch.run.search import search
from bitsearch.run.storage import answering
from bitsearch.run.study import Study
from bitsearch.run.terminal import Terminal

SECONDS_BETWEEN_PULSES = 2.0


def run(request: RunRequest, terminal: Terminal) -> Path:
    """Search mixed precisions of a model and write the run folder; give the path of the report.

    With a folder that a run has begun, it goes on from what is on disk.

    Raises:
        BitsearchError: bad names, data, or a folder of another run.
    """
    request.check()
    run = Context.of(request, RunFolder(request.out), terminal)
    with run.folder.locked():
        begin.check_limits(run)
        begin.write_manifest(run)
        with answering(run.storage), closing(run.open_study()) as study:
            study.limit(begin.budgets(run), request.limits.max_loss)
            begin.predict_times(run)
            with _pulse(run), run.executor() as executor:
                return _go_through(run, study, executor)


def dry_run(request: RunRequest, terminal: Terminal) -> tuple[SearchSpace, Plan]:
    """Read the data, time a little of everything, and give what a run from nothing would do; nothing is kept.

    Raises:
        BitsearchError: bad names, limits or data.
    """
    request.check()
    with TemporaryDirectory() as path:
        run = Context.of(request, RunFolder(path), terminal)
        begin.check_limits(run)
        begin.write_manifest(run)
        return run.space, begin.predict_times(run)


def _go_through(run: Context, study: Study, executor: Executor) -> Path:
    references = Repeated(run)
    with run.stage(REFERENCES):
        _prepare(run, executor, references)
    with run.stage(SEARCH):
        _search(run, executor, study)
    with run.stage(FINALS):
        finalists = train_finalists(run, executor, study, references)
    with run.stage(EVALUATION):
        _evaluate(run, executor, finalists)
    with run.stage(LATENCY):
        _time(run, finalists)
    full = run.results("full").values()
    run.folder.write_front(Front.of(full, run.objective, [*run.origins], run.request.limits))
    run.folder.update(ended=datetime.now(UTC).isoformat(timespec="seconds"))
    with run.stage(REPORT):
        return report.build(run.folder, executor)


@contextmanager
def _pulse(run: Context) -> Iterator[None]:
    """Show the time left, and write it down as a sign of life, until the run ends."""
    ended = Event()

    def beat() -> None:
        while not ended.wait(SECONDS_BETWEEN_PULSES):
            left = run.forecast.seconds
            run.terminal.whole(left, time.monotonic() - run.began)
            with suppress(OSError, RecordError):  # the run itself meets the same soon, and says it
                run.folder.write_pulse(Pulse(run.forecast.stage, run.forecast.share, left))

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _prepare(run: Context, executor: Executor, references: Repeated) -> None:
    """Train the float network of every choice of options and trace its graphs.

    The strategies are trained again in the end: what those trainings start from is begun as well, and the search
    need not wait for it.
    """
    options = run.space.options
    choices = [dict(zip(options, values, strict=True)) for values in product(*options.values())]
    graphs = run.spec.graphs

    def submit() -> Iterator[Future[None]]:
        yield from (executor.submit(workers.reference, choice) for choice in choices)
        yield from (executor.submit(workers.template, *item) for item in product(choices, graphs))
        if run.count > 1:
            references.train(executor, [item.configuration for item in run.space.strategies])

    for future in run.reported(submit(), len(choices) * (1 + len(graphs)), "references and traces ready"):
        future.result()


def _search(run: Context, executor: Executor, study: Study) -> None:
    results = run.results("finetuned")
    study.recover(results)
    strategies = [item.configuration for item in run.space.strategies]
    study.learn(_sensitivities(run))
    rungs = study.ladder(run.request.trials)
    study.enqueue([*strategies, *rungs])
    origins = {**{item.digest: "ladder" for item in rungs}, **run.origins}
    until = time.monotonic() + (math.inf if run.request.timeout is None else run.request.timeout)
    run.forecast.resume(len(results) / run.request.trials)

    def record(measurement: Measurement) -> None:
        run.folder.append(measurement)
        run.forecast.advance(len(results) / run.request.trials)
        left = run.forecast.seconds
        run.terminal.trial(measurement, results, run.request.trials, run.objective, left)

    search(
        study,
        workers.measure,
        run.request.trials,
        results,
        record,
        origins,
        executor,
        run.count,
        lambda: signals.going_on() and time.monotonic() < until,
        partial(workers.give_up, run.spec),
        run.sharing.gather,
    )


def _sensitivities(run: Context) -> Mapping[str, float]:
    """Score the groups by gradients, kept for continued runs."""
    scores = run.folder.manifest().sensitivities
    if scores is None or scores.keys() != {group.name for group in run.space.groups}:
        run.terminal.say("layer sensitivities")
        task = run.spec.task
        network = Trainer(run.spec).reference(run.entry.options_of_reference(task.preset)).network
        scores = sensitivity.fisher(
            network, task, run.spec.data, run.space, run.request.seed, run.terminal.progress
        )
        run.folder.update(sensitivities=scores)
    return scores


def _evaluate(run: Context, executor: Executor, finalists: list[Measurement]) -> None:
    """Compare what the finalists generate with the reference; a fuller record goes behind the one there is."""
    missing = [item for item in finalists if run.folder.evaluation(item.digest) is None]
    baseline = next((item for item in finalists if run.is_float(item)), None)
    run.forecast.resume(1 - len(missing) / max(len(finalists), 1), len(finalists) / run.planned)
    under_way = (executor.submit(workers.evaluate, item, baseline) for item in missing)
    for future in run.reported(under_way, len(missing), "evaluated", len(finalists)):
        metrics, evaluation = future.result()
        latest = run.results("full")[evaluation.digest]
        run.folder.append(replace(latest, metrics={**latest.metrics, **metrics}))
        run.folder.write_evaluation(evaluation)


def _time(run: Context, finalists: list[Measurement]) -> None:
    """Time the finalists once nothing else runs, in turns with the float file."""
    timed = set(run.folder.manifest().timed)
    files = [item for item in finalists if item.model]
    missing = [item for item in files if item.digest not in timed]
    beside = next((run.folder.path / str(item.model) for item in files if run.is_float(item)), None)
    run.forecast.resume(1 - len(missing) / max(len(files), 1), len(files) / run.planned)
    for done, item in enumerate(missing, len(files) - len(missing) + 1):
        found = measuring.latencies(run.spec, run.folder.path / str(item.model), beside=beside)
        run.folder.append(replace(run.results("full")[item.digest], latency_us=found))
        timed.add(item.digest)
        run.folder.update(timed=tuple(sorted(timed)))
        run.forecast.advance(done / len(files))
        busy = " on a busy machine" if any(latency.busy for latency in found) else ""
        run.terminal.step(f"{done}/{len(files)} timed{busy}", done / len(files), run.forecast.seconds)
