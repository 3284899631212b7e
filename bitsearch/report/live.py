"""The page of a run while it goes on, served from what is on disk; nothing is written."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from bitsearch import report
from bitsearch.core.errors import BitsearchError, ConfigurationError
from bitsearch.core.processes import processes
from bitsearch.core.rundir import RunFolder
from bitsearch.report import sheets, view
from bitsearch.report.template import fill

LOOPBACK: Final = "127.0.0.1"
PAGE, STAMP = "/report/index.html", "/report/stamp"
TYPES: Final = {
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".onnx": "application/octet-stream",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".yaml": "application/yaml",
}
REST = 10
"""Drawing rests this many times as long as it took: a tenth of a core at most goes to the page."""


class Site:
    """What is at which address: the page as the run stands now, its tables, and the files that the run kept."""

    def __init__(self, path: Path) -> None:
        self._folder = RunFolder(path)
        self._drawing = threading.Lock()  # matplotlib has one state for all threads
        self._page, self._stamp, self._fresh_until = "", "", 0.0

    def find(self, address: str) -> tuple[HTTPStatus, str, bytes] | None:
        """Give status, type and content of an address; None where nothing is."""
        if address in (PAGE, STAMP):
            stamp, page = self._now()
            if address == STAMP:
                return HTTPStatus.OK, "text/plain; charset=utf-8", stamp.encode()
            return HTTPStatus.OK, TYPES[".html"], page.encode()
        name = address.removeprefix("/report/")
        kind = Path(name).suffix
        if address.startswith("/report/") and kind in (".csv", ".json") and self._folder.begun:
            text = sheets.texts(view.read(self._folder)).get(name)
            if text is not None:
                return HTTPStatus.OK, TYPES[kind], text.encode()
        file = self._file(address)
        return (HTTPStatus.OK, TYPES[file.suffix], file.read_bytes()) if file else None

    def _file(self, address: str) -> Path | None:
        """Give a file of `report` or `models`, and of nothing beyond, whatever an address or a link says."""
        try:
            path = (self._folder.path / address.lstrip("/")).resolve()
            whole = path.is_file()
        except (OSError, ValueError):
            return None
        inside = (self._folder.report, self._folder.models)
        known = path.suffix in TYPES and any(path.is_relative_to(folder.resolve()) for folder in inside)
        return path if known and whole else None

    def _now(self) -> tuple[str, str]:
        """Draw the page again if the run has written since, but not all the time."""
        with self._drawing:
            began = time.monotonic()
            stamp = self._written()
            if stamp != self._stamp and (began >= self._fresh_until or not self._page):
                self._page, self._stamp = self._draw(stamp), stamp
                self._fresh_until = time.monotonic() + REST * (time.monotonic() - began)
            return self._stamp, self._page

    def _written(self) -> str:
        """Say when the run last wrote what the page shows."""
        names = ("run.json", "results.jsonl", "front.json", "report/index.html")
        files = [self._folder.path / name for name in names]
        return "-".join(f"{file.stat().st_mtime_ns:x}" if file.is_file() else "0" for file in files)

    def _draw(self, stamp: str) -> str:
        if not self._folder.begun:
            text = "The run has written nothing yet: it reads its data, or waits for other processes."
            return fill("waiting.html.jinja", title="No run yet", text=text, stamp=stamp, contents=[])
        try:
            run = view.read(self._folder)
            whole = self._folder.report / "index.html"
            if run.manifest.ended and whole.is_file():
                return whole.read_text()
            return report.render(run, stamp)
        except BitsearchError as error:
            return fill(
                "waiting.html.jinja",
                title="A damaged record",
                text=f"The run cannot be shown: {error}",
                stamp=stamp,
                contents=[],
            )


class _Handler(BaseHTTPRequestHandler):
    """Answer from the site of the server."""

    server: "Server"

    def do_GET(self) -> None:
        address = unquote(urlsplit(self.path).path)
        if not self.server.knows(self.headers.get("Host", "")):
            # Another site's name that leads here would let its scripts read the run.
            self._answer(HTTPStatus.FORBIDDEN, "text/plain; charset=utf-8", b"not by this name\n")
        elif address == "/":
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", PAGE.lstrip("/"))  # relative, for whatever stands in front
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif found := self.server.site.find(address):
            self._answer(*found)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"nothing here\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is the run's."""

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Server(ThreadingHTTPServer):
    """Serve one run folder; `serve_forever` until `shutdown`.

    Raises:
        ConfigurationError: the port is taken, or the address none of this machine.
    """

    daemon_threads = True

    def __init__(self, folder: Path, port: int, host: str = LOOPBACK) -> None:
        self.site = Site(folder)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(
                f"cannot listen on {host}, port {port}: {getattr(error, 'strerror', None) or error}; "
                "expected an address of this machine and a free port, 0 for any"
            ) from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let pass that a browser has gone away in the middle of an answer."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self.server_address[0]!s}:{self.server_port}/"

    def knows(self, host: str) -> bool:
        """Tell whether a request calls this machine by a name that is its own; any on a public address."""
        if not ip_address(str(self.server_address[0])).is_loopback:
            return True
        return host.rpartition(":")[0] in (str(self.server_address[0]), "localhost")


@contextmanager
def beside(folder: Path, port: int) -> Iterator[str]:
    """Serve from a process of low priority, which ends with the block or with this process; give its address.

    Raises:
        ConfigurationError: the port is taken.
    """
    with processes(1, os.nice, 10) as executor:
        yield executor.submit(_start, folder, port).result()


def _start(folder: Path, port: int) -> str:
    server = Server(folder, port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.url
