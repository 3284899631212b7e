"""An existing Dask cluster in place of processes of one's own: Slurm and HTCondor by way of dask-jobqueue."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bitsearch.core.errors import ConfigurationError
from bitsearch.core.processes import WorkerDiedError
from bitsearch.network import workers
from bitsearch.network.spec import Spec

if TYPE_CHECKING:
    from distributed import Client

SECONDS_TO_CONNECT = "10s"
T = TypeVar("T")
_one_at_a_time = threading.Lock()


@contextmanager
def connected(address: str) -> Iterator["Client"]:
    """Connect to a scheduler, by `tcp://HOST:PORT` or by the file that it has written.

    Raises:
        ConfigurationError: there is none, or `distributed` is not installed.
    """
    if find_spec("distributed") is None:
        raise ConfigurationError(
            "--dask needs distributed, not installed here: pip install 'bitsearch[dask]'"
        )
    from distributed import Client

    where = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        client = Client(**where, set_as_default=False, timeout=SECONDS_TO_CONNECT)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"--dask {address}: no scheduler answers ({reason}); expected tcp://HOST:PORT or a scheduler file"
        ) from error
    with client:
        yield client


def count(address: str) -> int:
    """Count the workers that a cluster has now; 1 where none has begun yet."""
    with connected(address) as client:
        return max(1, len(client.nthreads()))


@contextmanager
def cluster(spec: Spec, address: str) -> Iterator[Executor]:
    """Give an executor for the functions of `workers` on a cluster; what is under way at the end is broken off.

    Dask tries a task again whose worker dies. Files are written by the workers: the folder of the run has to lie where
    they see it under the same path.
    """
    with connected(address) as client:
        yield workers.recording(_Cluster(client, replace(spec, folder=spec.folder.resolve())), spec)


class _Cluster(Executor):
    """Dask's client as an executor."""

    def __init__(self, client: "Client", spec: Spec) -> None:
        self.client = client
        self.spec = spec

    def submit(self, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> "Future[T]":
        from distributed import KilledWorker

        outer: Future[T] = Future()

        def pass_on(inner: Any) -> None:
            if inner.cancelled():
                outer.cancel()
                return
            match inner.exception():
                case None:
                    outer.set_result(inner.result())
                case KilledWorker():
                    outer.set_exception(
                        WorkerDiedError("its Dask worker died every time, often for lack of memory")
                    )
                case error:
                    outer.set_exception(error)

        task = self.client.submit(_on_worker, self.spec, function, arguments, keywords, pure=False)
        task.add_done_callback(pass_on)
        # Dask drops tasks that nobody refers to.
        outer.add_done_callback(lambda _: task.release())
        return outer


def _on_worker(
    spec: Spec, function: Callable[..., T], arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> T:
    """Run a task on a worker; seeds are a process's, so that a worker's threads take turns."""
    with _one_at_a_time:
        if not workers.is_set_up(spec):
            workers.set_up(spec)
        return function(*arguments, **keywords)
