"""Atomic writes: a file is written under a temporary name in its final folder, synced and renamed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".new-"  # what temporary names begin with; a process that is killed leaves one


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file so that a reader sees the old one or the new one, never a part."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to, which takes the place of the file when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
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


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
