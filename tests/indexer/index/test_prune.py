"""Pruning: what is not needed goes, what is stays, and a kill at any moment leaves an index that opens and verifies."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.errors import BuildError, CorruptIndexError, UnknownIndexError, UnknownVersionError
from indexer.index.examples import Example, open_examples
from indexer.index.lock import writing_in
from indexer.index.prune import prune
from indexer.index.store import open_store
from indexer.index.versions import IndexVersion, activate, open_version, versions_of
from tests.edited import with_deleted, with_segment

NEW = Example("train", "new", 300, 300, "3", "", (1.0, 1.0, 1.0))


@pytest.fixture
def versions(index_folder: Path, copy_of: Callable[[Path], Path]) -> list[IndexVersion]:
    """Four versions, each made from the one before: built, appended to, and twice deleted from; the last is active."""
    folder = copy_of(index_folder)
    return [
        open_version(folder),
        with_segment(folder, [NEW]),
        with_deleted(folder, [1]),
        with_deleted(folder, [1, 2]),
    ]


def names(version: IndexVersion) -> set[str]:
    return {ref.sha256 for ref in version.manifest.objects().values()}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_only_what_the_active_version_needs_stays(versions: list[IndexVersion]) -> None:
    folder = versions[0].folder
    before = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    pruned = prune(folder)
    assert pruned.versions == tuple(sorted(version.version for version in versions[:3]))
    assert {path.name for path in pruned.files} == names(versions[2]) - names(versions[3])
    assert versions_of(folder) == [versions[3]] == [open_version(folder)]
    assert {path.name for path in (folder / "objects").iterdir()} == names(versions[3])
    assert dict(open_version(folder).verify()) == versions[3].manifest.objects()
    assert pruned.bytes == sum(size for path, size in before.items() if not path.exists())


def test_versions_to_keep_stay_with_all_their_objects(versions: list[IndexVersion]) -> None:
    folder = versions[0].folder
    activate(folder, versions[1].version)
    pruned = prune(folder, [versions[2].version[:5], versions[2].version])
    assert pruned.versions == tuple(sorted(version.version for version in (versions[0], versions[3])))
    assert versions_of(folder) == [versions[1], versions[2]]
    for version in versions_of(folder):
        assert dict(version.verify()) == version.manifest.objects()
    assert {path.name for path in (folder / "objects").iterdir()} == names(versions[1]) | names(versions[2])


def test_a_dry_run_says_the_same_and_removes_nothing(versions: list[IndexVersion]) -> None:
    folder = versions[0].folder
    before = files(folder)
    planned = prune(folder, dry_run=True)
    assert files(folder) - {"lock"} == before - {"lock"}
    assert prune(folder) == planned
    again = prune(folder)
    assert (again.versions, again.files, again.bytes) == ((), (), 0)


def test_what_killed_writers_left_goes_and_what_is_not_ours_stays(versions: list[IndexVersion]) -> None:
    folder = versions[0].folder
    places = [folder, folder / "objects", folder / "versions" / versions[3].version]
    for place in places:
        (place / ".new-left").write_bytes(b"left")
    (folder / "objects" / ".new-folder").mkdir()
    (folder / "objects" / ".new-folder" / "table").write_bytes(b"left")
    (folder / "versions" / ("0" * 16)).mkdir()
    for own in (folder / "notes.txt", folder / "objects" / "notes.txt", folder / "versions" / "notes.txt"):
        own.write_bytes(b"mine")
    prune(folder)
    assert [path for path in folder.rglob("*") if ".new-" in str(path) or "0" * 16 in str(path)] == []
    assert len(list(folder.rglob("notes.txt"))) == 3


class KilledError(BaseException):
    """What no handler in between catches."""


def killing(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the process end before its step-th change of the disk."""
    left = iter(range(step))

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                raise KilledError
            return change(*arguments, **options)

        return run

    for name in ("unlink", "rmdir", "fsync"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


def test_a_pruning_killed_between_any_two_steps_is_finished_by_the_next(
    versions: list[IndexVersion], tmp_path: Path
) -> None:
    expected = shutil.copytree(versions[0].folder, tmp_path / "expected")
    prune(expected, [versions[1].version])
    step, done = 0, False
    while not done:
        folder = shutil.copytree(versions[0].folder, tmp_path / "killed")
        with pytest.MonkeyPatch.context() as monkeypatch:
            killing(monkeypatch, step)
            try:
                prune(folder, [versions[1].version])
                done = True
            except KilledError:
                step += 1
        for version in versions_of(folder):
            version.check_sizes()
        active = open_version(folder)
        assert dict(active.verify()) == active.manifest.objects()
        assert active.version == versions[3].version
        prune(folder, [versions[1].version])
        assert files(folder) == files(expected)
        shutil.rmtree(folder)
    assert step >= len(names(versions[2]) - names(versions[3])) + 2 * 2


def test_a_version_to_keep_that_cannot_be_read_stops_it(versions: list[IndexVersion]) -> None:
    """Else its objects would be lost."""
    folder = versions[0].folder
    path = folder / "versions" / versions[1].version / "manifest.json"
    path.write_bytes(path.read_bytes() + b" ")
    before = files(folder)
    with pytest.raises(CorruptIndexError) as exc:
        prune(folder, [versions[1].version])
    assert str(exc.value).startswith(
        f"nothing was removed, because version {versions[1].version} is to stay, and: the bytes of {path} have changed"
    )
    assert files(folder) - {"lock"} == before - {"lock"}
    assert versions[1].version in prune(folder).versions
    assert versions_of(folder) == [versions[3]]


def test_an_active_version_that_cannot_be_read_stops_it(versions: list[IndexVersion]) -> None:
    folder = versions[0].folder
    (folder / "versions" / versions[3].version / "manifest.json").write_bytes(b"{}")
    with pytest.raises(CorruptIndexError, match=f"nothing was removed, because version {versions[3].version} is to s"):
        prune(folder)
    assert versions_of(folder) == versions[:3]


def test_an_active_version_without_its_manifest_stops_it(versions: list[IndexVersion]) -> None:
    path = versions[3].folder / "versions" / versions[3].version / "manifest.json"
    path.unlink()
    with pytest.raises(CorruptIndexError, match=f"is to stay, and: {path} is missing; restore it from a copy"):
        prune(versions[3].folder)
    assert versions_of(versions[3].folder) == versions[:3]


def test_what_does_not_exist_cannot_be_kept(versions: list[IndexVersion]) -> None:
    with pytest.raises(UnknownVersionError, match="has no version 'ffff'; expected one of"):
        prune(versions[0].folder, ["ffff"])
    assert versions_of(versions[0].folder) == versions


def test_the_journal_of_a_build_that_came_to_its_commit_goes(versions: list[IndexVersion]) -> None:
    building = versions[0].folder / "building"
    (building / "objects").mkdir(parents=True)
    journal = [building / name for name in ("fit.json", "plan.json", "shard-00000.json", f"objects/{'0' * 64}")]
    for path in journal:
        path.write_bytes(b"1")
    pruned = prune(versions[0].folder)
    assert set(journal) <= set(pruned.files)
    assert not building.exists() and versions_of(versions[0].folder) == [versions[3]]


def test_nothing_is_pruned_while_another_process_writes(versions: list[IndexVersion]) -> None:
    with writing_in(versions[0].folder), pytest.raises(BuildError, match="is at work in"):
        prune(versions[0].folder)


def test_a_folder_without_an_index_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UnknownIndexError, match="holds no finished index"):
        prune(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_server_with_a_removed_version_open_goes_on_answering(versions: list[IndexVersion]) -> None:
    removed = versions[2]
    store = open_store(removed.objects, removed.manifest.vectors)
    examples = open_examples(removed.objects, removed.manifest)
    whole = np.concatenate([np.array(rows) for rows in store])
    prune(versions[0].folder)
    assert not removed.objects.path(removed.manifest.vectors.deleted.object).exists()  # type: ignore[union-attr]
    activate(versions[0].folder, versions[3].version)
    assert np.array_equal(np.concatenate([np.array(rows) for rows in store]), whole)
    assert examples.find("train", "new") == NEW
    assert len(examples.listing("train", start=0, count=400)) == 300
