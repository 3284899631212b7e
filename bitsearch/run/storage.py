"""Where studies are kept: what `--storage` may name, and which extra brings its driver."""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from json import JSONDecodeError
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, GrpcStorageProxy, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from bitsearch.core.errors import ConfigurationError
from bitsearch.core.measurement import Direction
from bitsearch.core.names import masked

DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
"""The drivers that the extras bring, for addresses that name none."""
EXTRAS = {"mariadb": "mysql"}
ATTEMPTS = 5
"""Runs that begin together may all try to make the tables; all but one find that they exist already."""
SECONDS_TO_CONNECT = 10
SECONDS_LOCKED = 60
"""How long a write to SQLite waits for other processes that write."""
EXPECTED = "expected sqlite:///FILE.db, postgresql://USER@HOST/NAME, mysql://USER@HOST/NAME, journal:FILE or grpc://HOST:PORT"

ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError, JSONDecodeError)
"""What a storage raises that fails after it was opened."""


@contextmanager
def answering(storage: str) -> Iterator[None]:
    """Say in one line that a storage fails in the middle of what is done here.

    Raises:
        ConfigurationError: it is locked, read-only, full, damaged or gone.
    """
    try:
        yield
    except Exception as error:
        # Errors of grpc, an extra that most have not installed, are told by their name.
        if not isinstance(error, ERRORS) and type(error).__module__.partition(".")[0] != "grpc":
            raise
        reason = _reason(error)
        raise ConfigurationError(
            masked(
                f"the storage {storage} has failed ({reason}); what is measured stands in results.jsonl: mend the "
                "storage, or remove one that is damaged, and the same command continues"
            )
        ) from error


def _reason(error: Exception) -> str:
    """Give the first line of what the database says; Optuna wraps it in an advice to read on."""
    found = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
    return str(found).partition("\n")[0]


def open_study(
    storage: str | None, name: str, directions: Sequence[Direction]
) -> tuple[optuna.Study, BaseStorage]:
    """Create a study or take it up again, and give what it is kept in; without a storage that is memory.

    Raises:
        ConfigurationError: the storage cannot be opened, or lacks a driver.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            opened = open_storage(storage)
            study = optuna.create_study(
                storage=opened, study_name=name, directions=directions, load_if_exists=True
            )
            return study, opened
        except (
            SQLAlchemyError,
            optuna.exceptions.StorageInternalError,
            ImportError,
            ValueError,
            OSError,
        ) as error:
            late = isinstance(error, IntegrityError | ProgrammingError) or "already exists" in str(error)
            if late and attempt < ATTEMPTS:
                time.sleep(0.2 * attempt)
                continue
            reason = _reason(error)
            raise ConfigurationError(
                masked(f"the storage {storage} cannot be opened ({reason}); {EXPECTED}")
            ) from error
    raise AssertionError


def close_storage(storage: BaseStorage) -> None:
    """Give back its connections."""
    storage.remove_session()
    if isinstance(storage, RDBStorage):
        storage.engine.dispose()


def open_storage(storage: str | None) -> BaseStorage:
    """Open what an address names."""
    if storage is None:
        return InMemoryStorage()
    kind, _, rest = storage.partition(":")
    if kind == "journal":
        return JournalStorage(JournalFileBackend(rest.removeprefix("//")))
    if kind == "grpc":
        return _proxy(storage)
    url = make_url(storage)
    backend = url.get_backend_name()
    driver = DRIVERS.get(backend)
    if driver and "+" not in url.drivername:
        _require(driver, EXTRAS.get(backend, backend))
        url = url.set(drivername=f"{backend}+{driver}")
    options = (
        {"connect_args": {"timeout": SECONDS_LOCKED}} if backend == "sqlite" else {"pool_pre_ping": True}
    )
    return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)


def _proxy(storage: str) -> GrpcStorageProxy:
    _require("grpc", "grpc")
    address = urlsplit(storage)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = GrpcStorageProxy(host=address.hostname or "localhost", port=address.port or 13000)
    proxy.wait_server_ready(SECONDS_TO_CONNECT)
    return proxy


def _require(module: str, extra: str) -> None:
    if find_spec(module) is None:
        raise ConfigurationError(
            f"the storage needs {module}, not installed here: pip install 'bitsearch[{extra}]'"
        )
