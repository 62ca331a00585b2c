"""``proponent versions``: all of them listed, broken ones too; one made active; the others removed."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import typer
from rich.filesize import decimal

from indexer.cli import versions as versions_module
from indexer.errors import CorruptIndexError, UnknownVersionError
from indexer.index.examples import Example
from indexer.index.versions import IndexVersion, open_version, versions_of
from tests.edited import with_deleted, with_segment
from tests.indexer.cli.conftest import Command

NEW = Example("train", "new", 300, 300, "3", "", (1.0, 1.0, 1.0))


@pytest.fixture
def versions(index_folder: Path, copy_of: Callable[[Path], Path]) -> list[IndexVersion]:
    """Built, appended to, deleted from; the last is active."""
    folder = copy_of(index_folder)
    return [open_version(folder), with_segment(folder, [NEW]), with_deleted(folder, [1, 5])]


def size_of(version: IndexVersion) -> int:
    return sum(ref.bytes for ref in set(version.manifest.objects().values()))


def test_versions_are_listed_oldest_first_with_what_they_cost(command: Command, versions: list[IndexVersion]) -> None:
    first, second, third = versions
    lines = orjson.loads(command("versions", "list", first.folder, "--json").stdout)
    assert [line["version"] for line in lines] == [version.version for version in versions]
    assert lines[0] == {
        "version": first.version,
        "active": False,
        "made_by": "build",
        "parent": None,
        "rows": 300,
        "deleted": 0,
        "segments": 1,
        "bytes": size_of(first),
        "new_bytes": size_of(first),
        "fault": None,
    }
    assert lines[1] == {
        **lines[0],
        "version": second.version,
        "made_by": "append",
        "parent": first.version,
        "rows": 301,
        "segments": 2,
        "bytes": size_of(second),
        "new_bytes": size_of(second) - size_of(first),
    }
    assert lines[2] == {
        **lines[1],
        "version": third.version,
        "active": True,
        "made_by": "delete",
        "parent": second.version,
        "rows": 299,
        "deleted": 2,
        "bytes": size_of(second) + 16,
        "new_bytes": 16,
    }


def test_the_table_says_the_same(command: Command, versions: list[IndexVersion]) -> None:
    lines = command("versions", "list", versions[0].folder).stdout.splitlines()
    first, second, third = versions
    sizes = [decimal(size_of(version)).split() for version in versions]
    grown = decimal(size_of(second) - size_of(first)).split()
    assert [line.split() for line in lines[1:]] == [
        [first.version, "build", "-", "300", "0", "1", *sizes[0], *sizes[0]],
        [second.version, "append", first.version[:8], "301", "0", "2", *sizes[1], *grown],
        [third.version, "active", "delete", second.version[:8], "299", "2", "2", *sizes[2], "16", "bytes"],
    ]


def test_broken_versions_are_listed_and_hinder_none(command: Command, versions: list[IndexVersion]) -> None:
    first, second, third = versions
    path = first.folder / "versions" / first.version / "manifest.json"
    path.write_bytes(path.read_bytes()[:-1])
    shard = second.objects.path(second.manifest.vectors.shards[1].object)
    shard.unlink()
    lines = orjson.loads(command("versions", "list", first.folder, "--json").stdout)
    assert [line["version"] for line in lines] == [second.version, third.version, first.version]
    assert [(line["fault"] or "")[:60] for line in lines] == [
        *([f"vectors, shard 2: {shard} is missing"[:60]] * 2),
        f"the bytes of {path} have changed"[:60],
    ]
    assert lines[0]["new_bytes"] is None  # its parent cannot be read: nothing to compare with
    assert lines[2] == dict.fromkeys(lines[2]) | {
        "version": first.version,
        "active": False,
        "fault": lines[2]["fault"],
    }
    shown = command("versions", "list", first.folder).stdout
    assert f"{first.version}: the bytes of {path} have changed since it was built" in shown
    assert "active broken" in shown


def test_an_active_version_without_its_manifest_is_listed(command: Command, versions: list[IndexVersion]) -> None:
    path = versions[2].folder / "versions" / versions[2].version / "manifest.json"
    path.unlink()
    last = orjson.loads(command("versions", "list", versions[2].folder, "--json").stdout)[-1]
    assert (last["version"], last["active"]) == (versions[2].version, True)
    assert last["fault"] == f"{path} is missing; restore it from a copy, or rebuild"


def test_an_active_version_that_is_none_is_no_reason_to_hide_the_others(
    command: Command, versions: list[IndexVersion]
) -> None:
    (versions[0].folder / "active").write_bytes(b"none")
    lines = orjson.loads(command("versions", "list", versions[0].folder, "--json").stdout)
    assert [line["active"] for line in lines] == [False, False, False]


def test_a_version_is_made_active(command: Command, versions: list[IndexVersion]) -> None:
    first = versions[0]
    shown = command("versions", "activate", first.folder, first.version[:5]).stdout
    assert shown == f"{first.folder}: version {first.version} is active, with 300 training examples\n"
    assert open_version(first.folder) == first
    with pytest.raises(UnknownVersionError, match="has no version 'ffff'; expected one of"):
        command("versions", "activate", first.folder, "ffff")


def test_old_versions_are_removed_without_a_question_outside_a_terminal(
    command: Command, versions: list[IndexVersion]
) -> None:
    first, second, third = versions
    shown = command("versions", "prune", first.folder, "--keep", first.version[:6]).stdout.splitlines()
    manifest = len(orjson.dumps(second.manifest.model_dump(mode="json"), option=orjson.OPT_INDENT_2)) + 1
    assert shown == [
        f"version {second.version}",
        f"{first.folder}: 1 version, 0 objects, {manifest:,} bytes removed; version {third.version} is active",
    ]
    assert versions_of(first.folder) == [first, third]
    again = command("versions", "prune", first.folder, "--keep", first.version).stdout
    assert again == f"{first.folder}: nothing to remove; version {third.version} is active\n"


def test_a_dry_run_removes_nothing(command: Command, versions: list[IndexVersion]) -> None:
    shown = command("versions", "prune", versions[0].folder, "--dry-run").stdout.splitlines()
    assert sorted(shown[:2]) == sorted(f"version {version.version}" for version in versions[:2])
    assert shown[2].endswith(" bytes would be removed")
    assert versions_of(versions[0].folder) == versions


@pytest.mark.parametrize(("answer", "left"), [(True, 1), (False, 3)])
def test_at_a_terminal_a_question_is_asked(
    command: Command, versions: list[IndexVersion], monkeypatch: pytest.MonkeyPatch, answer: bool, left: int
) -> None:
    asked: list[str] = []

    def confirm(question: str, *, abort: bool) -> None:
        asked.append(question)
        if not answer:
            raise typer.Abort

    monkeypatch.setattr(versions_module, "_at_terminal", lambda: True)
    monkeypatch.setattr(typer, "confirm", confirm)
    result = command("versions", "prune", versions[0].folder)
    assert len(asked) == 1 and asked[0].startswith(f"{versions[0].folder}: remove 2 versions, 0 objects, ")
    assert (result.exit_code, len(versions_of(versions[0].folder))) == (0 if answer else 1, left)
    command("versions", "prune", versions[0].folder, "--yes")
    assert len(asked) == 1
    assert versions_of(versions[0].folder) == [versions[2]]


def test_a_version_to_keep_that_cannot_be_read_stops_the_pruning(
    command: Command, versions: list[IndexVersion]
) -> None:
    path = versions[0].folder / "versions" / versions[0].version / "manifest.json"
    path.write_bytes(b"")
    with pytest.raises(CorruptIndexError, match=f"^nothing was removed, because version {versions[0].version} is to s"):
        command("versions", "prune", versions[0].folder, "--keep", versions[0].version)
