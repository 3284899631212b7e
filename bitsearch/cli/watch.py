"""`watch`: the page of a run while it goes on."""

import argparse
import sys
from pathlib import Path

from bitsearch.core.errors import ConfigurationError

PORT = 8000
WATCH = """\
Serve the page of a run while the run goes on, also from another shell or after it has ended. It is drawn from what is
on disk and refreshes itself; nothing is written. Only this machine can reach it, unless --host says otherwise. The
address ends on stdout; Ctrl-C ends the server, not the run.

  bitsearch watch runs/caloinn
  ssh -L 8000:localhost:8000 HOST bitsearch watch runs/caloinn

Takes a tenth of a core at most, while a browser looks.
"""


def watch_options(verb: argparse.ArgumentParser) -> None:
    """Add the options of `watch`."""
    verb.add_argument("folder", type=Path, metavar="DIR", help="the --out folder of a run, begun or not")
    verb.add_argument(
        "--port", type=int, default=PORT, metavar="N", help=f"where to listen, 0 for any (default: {PORT})"
    )
    verb.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="an address of this machine that others may reach (default: 127.0.0.1, none may)",
    )


def watch(arguments: argparse.Namespace) -> None:
    """Serve until a signal comes."""
    from bitsearch.report.live import Server

    if not arguments.folder.is_dir():
        raise ConfigurationError(f"{arguments.folder} is no folder; expected the --out folder of a run")
    with Server(arguments.folder, arguments.port, arguments.host) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
