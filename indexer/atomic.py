"""Atomic writes: a file is written under a temporary name in its final folder, synced and renamed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.errors import DiskFullError

FULL = (errno.ENOSPC, errno.EDQUOT)
TEMPORARY = ".new-"  # what temporary names begin with; a process that is killed leaves one


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file so that a reader sees the old one or the new one, never a part."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to, which takes the place of the file when the block ends without an error."""
    make_folder(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it is in, durably; it may be there."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary(folder: Path) -> None:
    """Remove what killed writers left in the folder of an index, where they write; nobody may be writing there."""
    for place in ("", "objects/", "building/", "building/objects/", f"versions/{'[0-9a-f]' * 16}/"):
        for path in list(folder.glob(f"{place}{TEMPORARY}*")):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@contextmanager
def naming_full_disk(folder: Path, advice: Callable[[], str]) -> Iterator[None]:
    """Say which folder's disk is full, and what to do, where writes in the block find it so.

    Raises:
        DiskFullError: a disk or a quota is full.
        OSError: whatever else the writes raise.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno not in FULL:
            raise
        at = "" if exc.filename is None else f", at {exc.filename}"
        raise DiskFullError(f"the disk of {str(folder)!r} is full ({exc.strerror}{at}); {advice()}") from exc
