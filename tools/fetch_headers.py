"""Fetch onnxruntime's C headers from the Debian mirror that this machine uses, if it does; install nothing.

Usage: fetch_headers.py FOLDER (the headers land in FOLDER/include)
"""

import hashlib
import lzma
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

SUITE = "trixie"  # the first with the package
PACKAGE = "libonnxruntime-dev"
DIGEST = "234faf60b690baaafdc2067ae9bc2af2c9710014c201b98b27d01fc999ca4f09"  # of the headers
APT = Path("/etc/apt")


def mirrors(apt: Path = APT) -> Iterator[str]:
    """Yield the archive addresses in apt's configuration, one-line and deb822 style, in its order."""
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        one_line = re.findall(r"^\s*deb\s+(?:\[[^]]*\]\s+)?(https?://\S+)", text, re.MULTILINE)
        paragraphs = re.findall(r"^URIs:((?:.*\n?)(?:[ \t].*\n?)*)", text, re.MULTILINE)
        deb822 = [uri for paragraph in paragraphs for uri in paragraph.split() if uri.startswith("http")]
        yield from (uri.rstrip("/") for uri in (one_line if path.suffix == ".list" else deb822))


def download(url: str) -> bytes:
    """Read an address.

    Raises:
        OSError: it cannot be read.
    """
    with urllib.request.urlopen(url, timeout=120) as response:
        content: bytes = response.read()
    return content


def package_entry(index: str) -> dict[str, str]:
    """Find the package in a `Packages` index, as its fields.

    Raises:
        LookupError: the index has no such package.
    """
    for paragraph in index.split("\n\n"):
        if paragraph.startswith(f"Package: {PACKAGE}\n"):
            return dict(line.split(": ", 1) for line in paragraph.splitlines() if re.match(r"\S+: ", line))
    raise LookupError(f"found no {PACKAGE}, expected one")


def fetch(mirror: str, folder: Path) -> None:
    """Download, verify and unpack the headers from one mirror.

    Raises:
        OSError: the mirror, the suite or the package cannot be read, or `dpkg-deb` fails.
        LookupError: the suite has no such package.
        ValueError: the package does not have the checksum in the index, or holds other headers than those known.
    """
    machine = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True)
    index = download(f"{mirror}/dists/{SUITE}/main/binary-{machine.stdout.strip()}/Packages.xz")
    entry = package_entry(lzma.decompress(index).decode())
    package = download(f"{mirror}/{entry['Filename']}")
    found = hashlib.sha256(package).hexdigest()
    if found != entry["SHA256"]:
        raise ValueError(f"{PACKAGE}: found checksum {found}, expected {entry['SHA256']}")
    with tempfile.TemporaryDirectory() as temporary:
        (deb := Path(temporary) / "package.deb").write_bytes(package)
        subprocess.run(["dpkg-deb", "-x", deb, f"{temporary}/root"], check=True)
        header = next(Path(temporary).rglob("onnxruntime_c_api.h"))
        if (found := digest(header.parent)) != DIGEST:
            raise ValueError(f"{PACKAGE}: found headers with the checksum {found}, expected {DIGEST}")
        shutil.copytree(header.parent, folder / "include", dirs_exist_ok=True)


def digest(folder: Path) -> str:
    """Give the SHA-256 of all files, names and contents."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def main() -> int:
    """Try each mirror in turn; without any, CMake has another way and says so where that fails."""
    folder = Path(sys.argv[1])
    failures = []
    for mirror in dict.fromkeys(mirrors()):
        try:
            fetch(mirror, folder)
        except (OSError, LookupError, ValueError, lzma.LZMAError, subprocess.SubprocessError) as error:
            failures.append(f"{mirror}: {error}")
        else:
            return 0
    tried = "; ".join(failures) or f"no mirror in {APT}"
    print(
        f"fetch_headers: no {PACKAGE} of {SUITE} ({tried}): CMake will fetch a release archive",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
