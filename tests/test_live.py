"""The page of a run that goes on: what is served, to whom, and how it ends."""

import http.client
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import CHROMIUM, browser
from synthetic_run import BASELINES, baselines, begin, complete, configuration, measure

from bitsearch.cli import main
from bitsearch.core.errors import ConfigurationError
from bitsearch.core.rundir import RunFolder
from bitsearch.report import live

INDEX = "/report/index.html"


@contextmanager
def served(folder: Path) -> Iterator[live.Server]:
    with live.Server(folder, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def get(port: int, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
    """Ask for a path as it is written, with no normalisation."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_page_before_and_while_anything_is_measured(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        port = server.server_port
        assert get(port, "/")[0] == 302
        status, text = get(port, INDEX)
        assert (status, "has written nothing yet" in text) == (200, True)
        waiting = get(port, "/report/stamp")[1]
        assert f'data-stamp="{waiting}"' in text
        folder = begin(tmp_path)
        server.site._fresh_until = 0.0
        assert "Nothing has been measured yet" in get(port, INDEX)[1]
        folder.append(measure(BASELINES["default"], "baseline:default", "full", random.Random(1)))
        server.site._fresh_until = 0.0
        status, text = get(port, INDEX)
        assert "figure-pareto" in text
        assert f'data-stamp="{get(port, "/report/stamp")[1]}"' in text
        assert get(port, "/report/results.csv")[1].count("\n") == 2
        assert get(port, "/report/histograms.json")[1] == "{}"
        assert get(port, INDEX, method="HEAD") == (200, "")
    assert not folder.report.exists()


def test_drawing_rests(tmp_path: Path) -> None:
    """While it rests the old page stays, under its old stamp, so that nobody loads it again for nothing."""
    site = live.Site(tmp_path)
    before = site.find(INDEX), site.find("/report/stamp")
    begin(tmp_path)
    site._fresh_until = float("inf")
    assert (site.find(INDEX), site.find("/report/stamp")) == before
    site._fresh_until = 0.0
    assert site.find("/report/stamp") != before[1]


def test_damaged_records_are_named(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    (folder.path / "results.jsonl").write_text('{"<b>": 1}\n')
    with served(tmp_path) as server:
        status, text = get(server.server_port, INDEX)
    assert status == 200
    assert "results.jsonl, line 1 is damaged" in text


def test_an_ended_run_shows_its_report(tmp_path: Path) -> None:
    folder = complete(tmp_path / "run")
    page = folder.report / "index.html"
    (folder.report / "figures").mkdir(parents=True)
    page.write_text("as it was built")
    (folder.report / "figures" / "pareto.pdf").write_bytes(b"")
    model = next(item.model for item in folder.results() if item.model)
    with served(folder.path) as server:
        assert get(server.server_port, INDEX) == (200, page.read_text())
        assert get(server.server_port, "/report/figures/pareto.pdf", method="HEAD")[0] == 200
        assert get(server.server_port, f"/{model}", method="HEAD")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/run.json",
        "/results.jsonl",
        "/study.db",
        "/models",
        "/report/../run.json",
        "/report/%2e%2e/run.json",
        "/models/../../secret.csv",
        "/models/..%2f..%2fsecret.csv",
        "//report/../../secret.csv",
        "/models/link.csv",
        "/report/%00.csv",
        "/report/" + "a" * 5000 + ".csv",
        "/%ff",
    ],
)
def test_nothing_else_is_served(tmp_path: Path, path: str) -> None:
    folder = begin(tmp_path / "run")
    (tmp_path / "secret.csv").write_text("secret")
    folder.models.mkdir()
    (folder.models / "link.csv").symlink_to(tmp_path / "secret.csv")
    with served(folder.path) as server:
        assert get(server.server_port, path) == (404, "nothing here\n")


def test_other_names_of_this_machine_are_refused(tmp_path: Path) -> None:
    """A page of another site may point its own name at the loopback address."""
    begin(tmp_path)
    with served(tmp_path) as server:
        assert get(server.server_port, INDEX, host="evil.example")[0] == 403
        assert get(server.server_port, INDEX, host=f"evil.example:{server.server_port}")[0] == 403
        assert get(server.server_port, "/report/stamp", host=f"localhost:{server.server_port}")[0] == 200


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as server:
        assert main(["watch", str(tmp_path), "--port", str(server.server_port)]) == 2
        line = capsys.readouterr().err
        assert f"port {server.server_port}: Address already in use" in line
        assert line.count("\n") == 1
        with (
            pytest.raises(ConfigurationError, match="Address already in use"),
            live.beside(tmp_path, server.server_port),
        ):
            pass
    assert main(["watch", str(tmp_path), "--port", "99999"]) == 2
    assert main(["watch", str(tmp_path), "--host", "256.1.1.1"]) == 2
    assert main(["watch", str(tmp_path / "missing")]) == 2
    assert "missing is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_ends_quietly(tmp_path: Path, number: signal.Signals) -> None:
    begin(tmp_path)
    command = [sys.executable, "-m", "bitsearch", "watch", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert get(int(url.rstrip("/").rpartition(":")[2]), "/report/stamp")[0] == 200
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_run_serves_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = []

    def run(request: object, terminal: object) -> Path:
        """Be seen from outside."""
        begin(tmp_path / "run")
        ports.append(port := int(says[0].rstrip("/").rpartition(":")[2]))
        assert get(port, "/report/stamp")[0] == 200
        return tmp_path

    says: list[str] = []
    monkeypatch.setattr("bitsearch.run.terminal.Terminal.say", lambda _, text: says.append(text))
    monkeypatch.setattr("bitsearch.run.pipeline.run", run)
    words = ["run", "--model", "caloinn", "--preset", "smoke", "--out", str(tmp_path / "run"), "--serve", "0"]
    assert main(words) == 0
    assert says[0].startswith("live at http://127.0.0.1:")
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.1", ports[0])) != 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page was not opened")
def test_the_page_loads_itself_again_and_keeps_what_was_open(tmp_path: Path) -> None:
    folder = begin(tmp_path)
    baselines(folder, "finetuned", random.Random(1))
    with served(tmp_path) as server, browser() as chromium:
        chromium.look(1400)
        chromium.open(server.url)
        assert chromium.errors == []
        card = f"c-{BASELINES['all'].digest}"
        chromium.run(f"location.hash = '#{card}'")
        chromium.run("new Promise((done) => setTimeout(done, 100))")
        chromium.run("scrollBy({top: 100, behavior: 'instant'})")
        place = f"document.getElementById('{card}').getBoundingClientRect().top"
        where = chromium.run(place)
        rows = "document.querySelectorAll('table[data-name=m] tbody tr').length"
        before = chromium.run(rows)
        with chromium.loading():
            rival = configuration("exchange", lambda block, part: part == 1)
            folder.append(measure(rival, "search", "finetuned", random.Random(2)))
            server.site._fresh_until = 0.0
        assert chromium.run(rows) == before + 1
        assert chromium.run(f"document.getElementById('{card}').open")
        assert chromium.run(place) == pytest.approx(where, abs=1)
    assert RunFolder(tmp_path).report.exists() is False
