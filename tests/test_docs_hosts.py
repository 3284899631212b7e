"""docs/hosts.md has the tables that benchmarks/hosts.py prints."""

import re

import pytest
from other_hosts import ROOT, hosts

PAGE = (ROOT / "docs/hosts.md").read_text()
CELL = re.compile(r"refused \(\d+\)|(same bits|\de[-+]\d\d), (\d+\.\d\N{NO-BREAK SPACE}x|float32 refused)")


def table(heading: str) -> list[list[str]]:
    """Read the first table under a heading."""
    _, _, section = PAGE.partition(f"\n## {heading}\n")
    lines = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("file", hosts.FILES)
def test_every_file_has_a_row_for_every_host(file: str) -> None:
    head, _, *rows = table(f"The ternary file {hosts.FILES[file]}")
    assert head == ["host", *hosts.NETWORKS]
    (printed,) = re.findall(r"onnxruntime ([\d.]+)\.\n", PAGE)
    names = [host.name for host in hosts.HOSTS if hosts.takes(host, file)]
    assert [row[0].replace(printed, hosts.NEWEST) for row in rows] == names
    assert all(CELL.fullmatch(cell) for row in rows for cell in row[1:])


def test_reproducible_files_have_the_same_bits_in_every_row_with_the_operators() -> None:
    rows = table(f"The ternary file {hosts.FILES['reproducible']}")[2:]
    ours = [row for row in rows if row[0].endswith((", library", ", preload"))]
    assert len(ours) == sum(host.library or host.preload for host in hosts.HOSTS)
    assert all(cell.startswith("same bits") for row in ours for cell in row[1:])
    kept = [row[2:] for row in table("Bits") if row[1] == "reproducible"]
    assert len(kept) == len(hosts.NETWORKS)
    assert all(cell.startswith("same bits") for row in kept for cell in row)
