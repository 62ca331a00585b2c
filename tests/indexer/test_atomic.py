"""Atomic writes: the old file or the new one, never a part."""

import os
from pathlib import Path

import pytest

from indexer.atomic import TEMPORARY, sync_folder, write_atomically, writing


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / "small", b"data")
    assert (tmp_path / "small").stat().st_mode & 0o777 == 0o644


def test_a_folder_is_synced_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    sync_folder(tmp_path)
    [descriptor] = synced
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_replacement_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "active", b"old")

    def full(descriptor: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the disk is full"):
        write_atomically(tmp_path / "active", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("active", b"old")]


def test_a_replacement_is_whole_and_makes_its_folders(tmp_path: Path) -> None:
    write_atomically(tmp_path / "versions" / "1" / "manifest.json", b"old and long")
    write_atomically(tmp_path / "versions" / "1" / "manifest.json", b"new")
    assert (tmp_path / "versions" / "1" / "manifest.json").read_bytes() == b"new"
    assert len(list((tmp_path / "versions" / "1").iterdir())) == 1


def test_a_file_that_is_written_under_a_temporary_name(tmp_path: Path) -> None:
    with writing(tmp_path / "new" / "file") as temporary:
        temporary.write_bytes(b"data")
        assert [path.name for path in (tmp_path / "new").iterdir()] == [temporary.name]
        assert temporary.name.startswith(TEMPORARY)
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [("file", b"data")]
    with pytest.raises(KeyError), writing(tmp_path / "new" / "file") as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [("file", b"data")]
