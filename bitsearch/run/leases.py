"""Who measures what, where several runs share a study: a running trial is leased to the run that measures it.

A lease is two attributes of the trial: its `owner`, and the time when that was last `seen`, which the owner renews as
long as it lives. Clocks of machines are never compared: an owner is dead when nothing of its trial has changed for
`grace` seconds by the clock of the one who looks.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from optuna.trial import FrozenTrial, Trial, TrialState

OPEN = (TrialState.WAITING, TrialState.RUNNING)


@dataclass(frozen=True)
class Lease:
    """Under which name a run leases trials, where it keeps their files, and after how many seconds it is dead."""

    owner: str
    folder: str = ""
    beat: float = 15.0
    grace: float = 120.0


@dataclass
class Leases:
    """The trials that this run holds, renewed from a thread of their own: a measurement may take hours."""

    lease: Lease | None
    held: dict[int, Trial] = field(default_factory=dict)
    _signs: dict[int, tuple[object, float]] = field(default_factory=dict)

    def take(self, trial: Trial) -> None:
        """Lease a trial that has begun to run."""
        if self.lease:
            self.held[trial.number] = trial
            trial.set_user_attr("owner", self.lease.owner)
            self._renew(trial)

    def give_back(self, number: int) -> None:
        """End a lease."""
        self.held.pop(number, None)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew what is held for as long as this lasts."""
        if self.lease is None:
            yield
            return
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over, self.lease.beat), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def dead(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Give the running trials of other runs that show no sign of life any more."""
        if self.lease is None:
            return []
        now, found = time.monotonic(), []
        for trial in trials:
            if trial.state != TrialState.RUNNING or trial.number in self.held:
                continue
            attributes = trial.user_attrs
            sign = attributes.get("owner"), attributes.get("seen"), len(trial.params), len(attributes)
            last, since = self._signs.get(trial.number, (None, now))
            if last != sign:
                self._signs[trial.number] = sign, now
            elif now - since > self.lease.grace:
                found.append(trial)
        return found

    def is_own(self, trial: FrozenTrial) -> bool:
        """Tell whether this run, or an earlier sitting of it, has leased a trial; without leases all are its own."""
        return self.lease is None or trial.user_attrs.get("owner") == self.lease.owner

    def _beat(self, over: threading.Event, seconds: float) -> None:
        while not over.wait(seconds):
            for trial in tuple(self.held.values()):
                # A storage that is gone for a while fails the search itself, which can say so.
                with suppress(Exception):
                    self._renew(trial)

    def _renew(self, trial: Trial) -> None:
        trial.set_user_attr("seen", datetime.now(UTC).isoformat(timespec="milliseconds"))


@dataclass(frozen=True)
class Standing:
    """The trials of a study by digest: those that are `measured`, and those that hold one that is not.

    Of several open trials that with the lowest number holds a configuration; `unknown` ones run, but have not said
    what.
    """

    measured: dict[str, FrozenTrial]
    open: dict[str, FrozenTrial]
    unknown: tuple[FrozenTrial, ...]

    @property
    def running(self) -> list[str]:
        """Digests of what is being measured."""
        return [digest for digest, trial in self.open.items() if trial.state == TrialState.RUNNING]
