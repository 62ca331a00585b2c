"""``proponent verify``: every file in full, and the first changed one by its name."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.errors import CorruptIndexError
from indexer.index.versions import open_version
from service.cli import main
from tests.indexer.cli.conftest import Command


def flip(path: Path) -> None:
    """Change one bit in the middle of a file; its size stays."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_every_file_of_a_whole_index_is_named(command: Command, index_folder: Path) -> None:
    version = open_version(index_folder)
    lines = command("verify", index_folder).stdout.splitlines()
    objects = version.manifest.objects()
    assert lines[0] == f"manifest  {version.fingerprint}"
    assert lines[-1] == f"{index_folder}: version {version.version} is as it was built"
    assert [line.split(maxsplit=4) for line in lines[1:-1]] == [
        ["ok", ref.sha256[:16], f"{ref.bytes:,}", "bytes", role] for role, ref in objects.items()
    ]
    assert {path.name for path in (index_folder / "objects").iterdir()} == {ref.sha256 for ref in objects.values()}


def test_each_file_with_a_flipped_bit_is_found_and_named(
    command: Command, index_folder: Path, copy_of: Callable[[Path], Path]
) -> None:
    copy = copy_of(index_folder)
    for role, ref in open_version(copy).manifest.objects().items():
        path = copy / "objects" / ref.sha256
        whole = path.read_bytes()
        flip(path)
        with pytest.raises(CorruptIndexError) as found:
            command("verify", copy)
        assert str(found.value) == (
            f"{role}: the bytes of {path} have changed since it was built; restore it from a copy, "
            "or rebuild with `proponent build`"
        )
        path.write_bytes(whole)
    assert command("verify", copy).exit_code == 0


def test_a_changed_index_ends_the_command_with_status_1(
    index_folder: Path,
    copy_of: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    copy = copy_of(index_folder)
    [shard] = open_version(copy).manifest.vectors.shards
    flip(copy / "objects" / shard.object.sha256)
    monkeypatch.setattr(sys, "argv", ["proponent", "verify", str(copy)])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert stopped.value.code == 1
    assert "is as it was built" not in out
    [line] = err.splitlines()
    assert line.startswith(f"proponent: vectors, shard 1: the bytes of {copy / 'objects' / shard.object.sha256} have")


def test_a_changed_manifest_is_found(command: Command, index_folder: Path, copy_of: Callable[[Path], Path]) -> None:
    copy = copy_of(index_folder)
    [manifest] = copy.glob("versions/*/manifest.json")
    flip(manifest)
    with pytest.raises(CorruptIndexError, match=f"the bytes of {manifest} have changed since it was built"):
        command("verify", copy)
