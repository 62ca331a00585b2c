"""Pruning: versions that nobody needs, and then the objects that no remaining version names.

Manifests go first, and objects when that is durable. So a pruning that is killed leaves files that no manifest names,
never a manifest whose files are gone, and the next pruning finishes it. A server that has a removed version open goes
on answering: its files keep their bytes until it closes them.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.atomic import TEMPORARY, remove, sync_folder
from indexer.errors import CorruptIndexError
from indexer.index.begun import journal_files, remove_journal
from indexer.index.lock import writing_in
from indexer.index.objects import Objects
from indexer.index.versions import active_version, is_version_name, read_version, version_named


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed, or would be: versions, files of objects and of killed writers, and the bytes of it all."""

    versions: tuple[str, ...]
    files: tuple[Path, ...]
    bytes: int


def prune(folder: Path, keep: Sequence[str] = (), *, dry_run: bool = False) -> Pruned:
    """Remove every version but the active one and those to keep, and every object that only they named.

    dry_run: remove nothing, only say what would be.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        UnknownVersionError: a version to keep does not exist.
        CorruptIndexError: a version to keep, or the active one, cannot be read: its objects would be lost.
        BuildError: another process writes in the folder.
    """
    active_version(folder)  # a folder without an index is refused before a lock is put there
    with writing_in(folder):
        kept = {active_version(folder), *(version_named(folder, name) for name in keep)}
        named = {sha256 for name in sorted(kept) for sha256 in _objects_of(folder, name)}
        gone = _versions_but(folder, kept)
        files = [*Objects(folder / "objects").unnamed(named), *_leftovers(folder, kept)]
        size = sum(map(size_of, (*files, *gone)))
        if not dry_run:
            _remove(folder, gone, files)
    return Pruned(tuple(version.name for version in gone), tuple(files), size)


def _objects_of(folder: Path, version: str) -> set[str]:
    """Return the hashes of the objects that a version names.

    Raises:
        CorruptIndexError: its manifest cannot be read.
    """
    try:
        manifest = read_version(folder, version).manifest
    except CorruptIndexError as exc:
        raise CorruptIndexError(f"nothing was removed, because version {version} is to stay, and: {exc}") from exc
    return {ref.sha256 for ref in manifest.objects().values()}


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    found = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in found if not file.is_dir())


def _versions_but(folder: Path, kept: set[str]) -> list[Path]:
    """Return the folders of versions, readable or not, and of writers that were killed before they had a manifest."""
    return sorted(
        path
        for path in (folder / "versions").iterdir()
        if is_version_name(path.name) and path.name not in kept and path.is_dir() and not path.is_symlink()
    )


def _leftovers(folder: Path, kept: set[str]) -> list[Path]:
    places = (folder, *(folder / "versions" / name for name in sorted(kept)))
    temporary = [path for place in places for path in sorted(place.glob(f"{TEMPORARY}*"))]
    return [*temporary, *journal_files(folder)]  # there is an active version, so that build came to its commit


def _remove(folder: Path, versions: Sequence[Path], files: Sequence[Path]) -> None:
    for version in versions:
        shutil.rmtree(version)
    sync_folder(folder / "versions")  # before the first object goes, also where the power fails
    for path in files:
        remove(path)
    remove_journal(folder)  # its folders, which are empty now
