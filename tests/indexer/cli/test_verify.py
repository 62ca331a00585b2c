"""``proponent verify``: every file of every version in full, and each one that is wrong by its name."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.errors import CorruptIndexError
from indexer.index.versions import IndexVersion, open_version
from service.cli import main
from tests.edited import with_deleted
from tests.indexer.cli.conftest import Command
from tests.indexer.index.test_audit import flip


@pytest.fixture
def versions(index_folder: Path, copy_of: Callable[[Path], Path]) -> list[IndexVersion]:
    folder = copy_of(index_folder)
    return [open_version(folder), with_deleted(folder, [1])]


def test_every_file_of_a_whole_index_is_named(command: Command, index_folder: Path) -> None:
    version = open_version(index_folder)
    lines = command("verify", index_folder).stdout.splitlines()
    objects = version.manifest.objects()
    manifest = index_folder / "versions" / version.version / "manifest.json"
    assert lines[-1] == f"{index_folder}: version {version.version}, {len(objects) + 2} files, as they were written"
    assert [line.split(maxsplit=4) for line in lines[:-1]] == [
        ["ok", "active", "17", "bytes", "active"],
        ["ok", "manifest.json", f"{manifest.stat().st_size:,}", "bytes", f"manifest of {version.version}"],
        *(
            ["ok", ref.sha256[:16], f"{ref.bytes:,}", "bytes", f"{role} of {version.version}"]
            for role, ref in objects.items()
        ),
    ]
    assert {path.name for path in (index_folder / "objects").iterdir()} == {ref.sha256 for ref in objects.values()}


def test_each_file_that_is_wrong_is_named_with_its_role_and_versions(
    versions: list[IndexVersion], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = versions
    folder = first.folder
    shard, table = first.manifest.vectors.shards[0].object, first.manifest.examples[0].object
    flip(first.objects.path(shard))
    first.objects.path(table).unlink()
    monkeypatch.setattr(sys, "argv", ["proponent", "verify", str(folder)])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert stopped.value.code == 1
    both = ", ".join(sorted((first.version, second.version)))
    assert [line for line in out.splitlines() if not line.startswith("ok ")] == [
        f"WRONG  {shard.sha256[:16]}  {shard.bytes:>13,} bytes  vectors, shard 1 of {both}: has changed",
        f"WRONG  {table.sha256[:16]}  {table.bytes:>13,} bytes  examples of {both}: is missing",
    ]
    files = len(first.manifest.objects()) + 1 + 3
    assert err.splitlines()[-1] == (
        f"proponent: 2 of {files} files of {str(folder)!r} are not as they were written; restore them from a copy, "
        "activate a version that is whole, or rebuild with `proponent build`"
    )


def test_a_changed_manifest_is_found(command: Command, versions: list[IndexVersion]) -> None:
    flip(versions[0].folder / "versions" / versions[0].version / "manifest.json")
    with pytest.raises(CorruptIndexError, match=r"^1 of \d+ files of .* are not as they were written"):
        command("verify", versions[0].folder)


def test_one_version_is_verified_alone(command: Command, versions: list[IndexVersion]) -> None:
    first, second = versions
    assert second.manifest.vectors.deleted is not None
    flip(second.objects.path(second.manifest.vectors.deleted.object))
    lines = command("verify", first.folder, "--version", first.version[:4]).stdout.splitlines()
    assert lines[-1].startswith(
        f"{first.folder}: version {first.version}, {len(first.manifest.objects()) + 1} files, as"
    )
    with pytest.raises(CorruptIndexError, match=r"^1 of \d+ files"):
        command("verify", first.folder, "--version", second.version)


def test_what_no_version_names_is_said_and_is_no_fault(command: Command, versions: list[IndexVersion]) -> None:
    (versions[0].folder / "objects" / ("0" * 64)).write_bytes(b"four")
    result = command("verify", versions[0].folder)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-3:-1] == [
        f"spare  {'0' * 16}  {4:>13,} bytes  no version names it",
        "`proponent versions prune` removes what no version names",
    ]
    assert result.stdout.splitlines()[-1].startswith(f"{versions[0].folder}: 2 versions, ")
