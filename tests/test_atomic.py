"""Files are whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from bitsearch.core.atomic import replacing, write_atomically


@pytest.mark.parametrize("content", ["text", b"bytes"])
def test_atomic_write_makes_folders_and_leaves_nothing_beside(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "new" / "file.json"
    for _ in range(2):
        write_atomically(file, content)
    assert file.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(file.parent.iterdir()) == [file]


def test_interrupted_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file.json"
    write_atomically(file, "old")

    def fail(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file.json", "new")
    assert list(tmp_path.iterdir()) == []


def test_file_and_folder_are_on_disk_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, synced = tmp_path / "file.json", []

    def fsync(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path, file.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(file, "new")
    assert synced == [(False, False), (True, True)]


def test_streams_are_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    with pytest.raises(ZeroDivisionError), replacing(file) as stream:
        stream.write(b"a" * (1 // 0))
    assert list(tmp_path.iterdir()) == []
    with replacing(file) as stream:
        for part in (b"a" * 10, b"b" * 10):
            stream.write(part)
    assert file.read_bytes() == b"a" * 10 + b"b" * 10
