"""Versions of an index: commit one, open the active one, verify.

A version is named by the first 16 hex digits of its manifest's sha256, so a manifest proves itself. Its full sha256
is the index's fingerprint. The manifest is written when all objects are there: it is the commit point.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import ValidationError

from indexer.atomic import write_atomically
from indexer.errors import BuildError, CorruptIndexError, UnknownIndexError
from indexer.index.manifest import FORMAT, Manifest
from indexer.index.objects import ObjectRef, Objects


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
    """Refuse to build over a finished index.

    Raises:
        BuildError: the folder holds one, or is a file.
    """
    if is_index(folder):
        raise BuildError(f"{str(folder)!r} already holds an index; build into another folder, or remove this one first")
    for place in (folder, *folder.resolve().parents):
        if place.exists() and not place.is_dir():
            raise BuildError(f"{str(place)!r} is a file; expected a folder to build the index in")


@contextmanager
def building_in(folder: Path) -> Iterator[Objects]:
    """Hold the folder of a first build: alone in it, from an empty start, and leaving nothing behind if it fails.

    Raises:
        BuildError: another build is at work in the folder, or it has finished one in the meantime.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise BuildError(f"another build is at work in {str(folder)!r}; wait for it, or build elsewhere") from exc
        refuse_existing(folder)
        objects = Objects(folder / "objects")
        shutil.rmtree(objects.folder, ignore_errors=True)  # what a killed build left: no manifest names it
        try:
            yield objects
        except BaseException:
            if not is_index(folder):
                shutil.rmtree(objects.folder, ignore_errors=True)
            raise


def commit(folder: Path, manifest: Manifest) -> IndexVersion:
    """Write the manifest as a new version, and make it the active one."""
    data = orjson.dumps(manifest.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    fingerprint = hashlib.sha256(data).hexdigest()
    version = fingerprint[:16]
    write_atomically(folder / "versions" / version / "manifest.json", data)
    write_atomically(folder / "active", f"{version}\n".encode())
    return IndexVersion(folder, version, f"sha256:{fingerprint}", manifest)


def open_version(folder: Path) -> IndexVersion:
    """Open the active version: its manifest in full, its objects by size.

    Raises:
        UnknownIndexError: the folder holds no finished index.
        CorruptIndexError: a file is missing, cut off or changed.
    """
    if not is_index(folder):
        reason = (
            "its build did not finish; build again"
            if (folder / "objects").is_dir()
            else "build one with `proponent build`"
        )
        raise UnknownIndexError(f"{str(folder)!r} holds no finished index; {reason}")
    version = (folder / "active").read_bytes().decode("utf-8", "replace").strip()
    known = sorted(path.name for path in (folder / "versions").glob("*") if path.is_dir())
    if version not in known:
        raise CorruptIndexError(
            f"{folder / 'active'} names version {version!r}, which does not exist; expected one of {known}"
        )
    path = folder / "versions" / version / "manifest.json"
    data = path.read_bytes() if path.is_file() else b""
    fingerprint = hashlib.sha256(data).hexdigest()
    if fingerprint[:16] != version:
        raise CorruptIndexError(
            f"the bytes of {path} have changed since it was built; restore it from a copy, or rebuild"
        )
    opened = IndexVersion(folder, version, f"sha256:{fingerprint}", _parse(data, path))
    opened.check_sizes()
    return opened


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
