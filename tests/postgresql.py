"""A PostgreSQL of the tests' own: a cluster in a temporary folder, on a Unix socket, as a user without privileges."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

MISSING = "PostgreSQL IS NOT TESTED: expected initdb and postgres (Debian: postgresql) in PATH or /usr/lib/postgresql"


def programs() -> Path | None:
    """Find the folder of `initdb` and `postgres`: Debian keeps them out of PATH."""
    folders = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").is_file()), None)


class Cluster:
    """A running server; every call of `database` gives the address of a new, empty one."""

    def __init__(self, folder: Path, user: int | None) -> None:
        self.folder = folder
        self.user = user
        self._numbers = count()

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        bin_folder = programs()
        assert bin_folder
        subprocess.run(
            [str(bin_folder / program), *arguments],
            user=self.user,
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def database(self) -> str:
        """Create a database."""
        name = f"test{next(self._numbers)}"
        self.run("createdb", "-h", str(self.folder), "-U", "tester", name)
        return f"postgresql://tester@/{name}?host={self.folder}"


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a server and stop it in the end."""
    # Paths of sockets must be short: pytest's folders are not.
    with tempfile.TemporaryDirectory(prefix="bitsearch-pg-") as made:
        folder = Path(made)
        user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        if user is not None:
            os.chown(folder, user, -1)
        server = Cluster(folder, user)
        server.run(
            "initdb", "-D", "data", "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"
        )
        settings = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=50"
        server.run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", settings, "start")
        try:
            yield server
        finally:
            server.run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")
