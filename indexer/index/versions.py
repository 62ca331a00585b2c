"""Versions of an index: commit one, open the active one or another, list them, make another one active.

A version is named by the first 16 hex digits of its manifest's sha256, so a manifest proves itself. Its full sha256
is the index's fingerprint. The manifest is written when all objects are there: it is the commit point. A folder of
versions/ without a manifest is what a killed writer left, and no version.
"""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import ValidationError

from indexer.atomic import naming_full_disk, sync_folder, write_atomically
from indexer.errors import BuildError, CorruptIndexError, UnknownIndexError, UnknownVersionError
from indexer.index.lock import writing_in
from indexer.index.manifest import FORMAT, Manifest
from indexer.index.objects import ObjectRef, Objects

DIGITS = 16  # of the sha256 of a manifest: the name of its version
FEWEST_DIGITS = 4  # that a person may name a version by


@dataclass(frozen=True, slots=True)
class IndexVersion:
    """One version of the index in a folder."""

    folder: Path
    version: str
    fingerprint: str
    manifest: Manifest

    @property
    def name(self) -> str:
        """The index's name: that of its folder."""
        return self.folder.resolve().name

    @property
    def objects(self) -> Objects:
        """Where its files lie."""
        return Objects(self.folder / "objects")

    def check_sizes(self) -> None:
        """Check that every object is there and has its size; quick."""
        for role, ref in self.manifest.objects().items():
            self.objects.check_size(ref, role)

    def verify(self) -> Iterator[tuple[str, ObjectRef]]:
        """Hash every object in full, yielding each one that is as it was built; raises at the first that is not."""
        for role, ref in self.manifest.objects().items():
            self.objects.check_hash(ref, role)
            yield role, ref


def is_index(folder: Path) -> bool:
    """Say whether a folder holds a finished index."""
    return (folder / "active").is_file()


def refuse_existing(folder: Path) -> None:
    """Refuse to build over a finished index, also over one that has lost which of its versions is active.

    Raises:
        BuildError: the folder holds one, or is a file.
    """
    if is_index(folder):
        raise BuildError(f"{str(folder)!r} already holds an index; build into another folder, or remove this one first")
    known = version_names(folder)
    if known:
        raise BuildError(
            f"{str(folder)!r} holds versions of an index, none of them active; {_why_unfinished(folder, known)}; or "
            "build into another folder, or remove this one first"
        )
    for place in (folder, *folder.resolve().parents):
        if place.exists() and not place.is_dir():
            raise BuildError(f"{str(place)!r} is a file; expected a folder to build the index in")


def commit(folder: Path, manifest: Manifest, *, activate: bool = True) -> IndexVersion:
    """Write the manifest as a new version, and make it the active one unless that is to be left as it is."""
    data = orjson.dumps(manifest.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    fingerprint = hashlib.sha256(data).hexdigest()
    committed = IndexVersion(folder, fingerprint[:DIGITS], f"sha256:{fingerprint}", manifest)
    write_atomically(manifest_path(folder, committed.version), data)
    sync_folder(folder / "versions")  # its name too, before anything refers to it
    if activate:
        _make_active(committed)
    return committed


def activate(folder: Path, version: str) -> IndexVersion:
    """Make a version the active one, which is served from its next opening on.

    Raises:
        BuildError: another process writes in the folder.
        UnknownIndexError: the folder holds no version at all.
        UnknownVersionError: there is no such version.
        CorruptIndexError: its manifest has changed, or an object is missing or cut off.
        DiskFullError: the disk is full; the version that was active still is.
    """
    name = version_named(folder, version)
    with writing_in(folder), naming_full_disk(folder, lambda: "nothing was changed: make room, and do it again"):
        opened = open_version(folder, name)
        _make_active(opened)
    return opened


def _make_active(version: IndexVersion) -> None:
    write_atomically(version.folder / "active", f"{version.version}\n".encode())


def open_version(folder: Path, version: str | None = None) -> IndexVersion:
    """Open a version, or without its name the active one: its manifest in full, its objects by size.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        UnknownVersionError: it has no version of that name.
        CorruptIndexError: a file is missing, cut off or changed.
    """
    opened = read_version(folder, active_version(folder) if version is None else version_named(folder, version))
    opened.check_sizes()
    return opened


def active_version(folder: Path) -> str:
    """Return the name of the active version; whether it can be read is not asked.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        CorruptIndexError: the file that names the active version names none that there is.
    """
    known = version_names(folder)
    if not is_index(folder):
        raise UnknownIndexError(f"{str(folder)!r} holds no finished index; {_why_unfinished(folder, known)}")
    version = (folder / "active").read_bytes().decode("utf-8", "replace").strip()
    if version not in known and not (is_version_name(version) and manifest_path(folder, version).parent.is_dir()):
        raise CorruptIndexError(
            f"{folder / 'active'} names version {version!r}, which does not exist; expected one of {known}: "
            "make one the active one with `proponent versions activate`"
        )
    return version


def version_named(folder: Path, start: str) -> str:
    """Return the full name of a version by its first digits, at least four.

    Raises:
        UnknownIndexError: the folder holds no version at all.
        UnknownVersionError: they are of no version, or of several.
    """
    known = version_names(folder)
    if not known:
        raise UnknownIndexError(f"{str(folder)!r} holds no finished index; {_why_unfinished(folder, known)}")
    found = [name for name in known if name.startswith(start)]
    if len(found) == 1 and len(start) >= FEWEST_DIGITS:
        return found[0]
    raise UnknownVersionError(
        f"{str(folder)!r} has {'several versions' if len(found) > 1 else 'no version'} {start!r}; expected one of "
        f"{known}, or its first digits, at least {FEWEST_DIGITS}"
    )


def is_version_name(name: str) -> bool:
    """Say whether a folder is named as those of versions are."""
    return len(name) == DIGITS and set(name) <= set("0123456789abcdef")


def version_names(folder: Path) -> list[str]:
    """Return the names of all versions, readable or not, in the order of their digits."""
    return sorted(path.parent.name for path in (folder / "versions").glob("*/manifest.json"))


def versions_of(folder: Path) -> list[IndexVersion]:
    """Return every version that can be read, parents before children, else as they were written.

    What cannot be read hinders none of the others, and is left out: see `version_names`.
    """
    written: dict[int, list[IndexVersion]] = {}
    for name in version_names(folder):
        with suppress(CorruptIndexError, FileNotFoundError):  # the second where it is pruned at this moment
            time = manifest_path(folder, name).stat().st_mtime_ns
            written.setdefault(time, []).append(read_version(folder, name))
    waiting = [version for time in sorted(written) for version in written[time]]
    found: list[IndexVersion] = []
    while waiting:
        names = {version.version for version in waiting}
        oldest = next(version for version in waiting if version.manifest.parent not in names)
        waiting.remove(oldest)
        found.append(oldest)
    return found


def manifest_path(folder: Path, version: str) -> Path:
    """Return where the manifest of a version lies."""
    return folder / "versions" / version / "manifest.json"


def read_version(folder: Path, version: str) -> IndexVersion:
    """Read the manifest of a version and let it prove itself; nothing is said of the objects.

    Raises:
        CorruptIndexError: it is missing, has changed, or is none.
    """
    path = manifest_path(folder, version)
    if not path.is_file():
        raise CorruptIndexError(f"{path} is missing; restore it from a copy, or rebuild")
    data = path.read_bytes()
    fingerprint = hashlib.sha256(data).hexdigest()
    if fingerprint[:DIGITS] != version:
        raise CorruptIndexError(
            f"the bytes of {path} have changed since it was built; restore it from a copy, or rebuild"
        )
    return IndexVersion(folder, version, f"sha256:{fingerprint}", _parse(data, path))


def _why_unfinished(folder: Path, known: list[str]) -> str:
    if (folder / "building").is_dir():
        return "its build did not finish: the same `proponent build` command resumes it"
    if known:
        return f"make a version the active one with `proponent versions activate`: {known}"
    if (folder / "objects").is_dir():
        return "its build did not finish; build again"
    return "build one with `proponent build`"


def _parse(data: bytes, path: Path) -> Manifest:
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise CorruptIndexError(f"{path} is not JSON; rebuild the index") from exc
    if not isinstance(document, dict):
        raise CorruptIndexError(f"{path} is not a JSON object; rebuild the index")
    if document.get("format") != FORMAT:
        raise CorruptIndexError(
            f"{path} is of format {document.get('format')!r}; this version of Proponent reads format {FORMAT}: "
            "use the version that built it"
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CorruptIndexError(f"{path}: {place}: {first['msg']}; was it built by a newer version?") from exc
