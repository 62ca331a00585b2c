"""Atomic writes: the old file or the new one, never a part."""

import errno
import os
from pathlib import Path

import pytest

from indexer.atomic import (
    TEMPORARY,
    make_folder,
    naming_full_disk,
    remove,
    remove_temporary,
    sync_folder,
    write_atomically,
    writing,
)
from indexer.errors import DiskFullError


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


def test_every_new_folder_is_synced_in_the_one_that_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("indexer.atomic.sync_folder", synced.append)
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir() and synced == [tmp_path, tmp_path / "a"]
    make_folder(tmp_path / "a")
    assert len(synced) == 2


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    """Where they write, and nowhere else."""
    version = f"versions/{'0f' * 8}"
    kept = {"kept", "objects/kept", "mine/.new-idea", "objects/mine/.new-idea", "versions/mine/.new-idea"}
    left = {".new-file", "objects/.new-file", "objects/.new-table/.new-inner", "building/.new-file", "building/kept"}
    left |= {"building/objects/.new-file", f"{version}/.new-file"}
    for name in kept | left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_temporary(tmp_path)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == kept | {"building/kept"}
    assert not (tmp_path / "objects" / ".new-table").exists()


def test_a_link_is_removed_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    assert (tmp_path / "folder" / "inner").is_dir() and not (tmp_path / "link").is_symlink()
    remove(tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_what_to_do(tmp_path: Path, number: int) -> None:
    expected = rf"the disk of '.*index' is full \({os.strerror(number)}, at some/file\); make room"
    with pytest.raises(DiskFullError, match=expected), naming_full_disk(tmp_path / "index", lambda: "make room"):
        raise OSError(number, os.strerror(number), "some/file")


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), naming_full_disk(tmp_path, lambda: "make room"):
        raise PermissionError(errno.EACCES, "no")
