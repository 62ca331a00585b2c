"""One writer at a time in the folder of an index: a build, an edit or a pruning. Readers need no lock."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from indexer.errors import BuildError

_LOCK = "lock"


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Be the only writer in a folder, which is made where it does not exist.

    The lock is the kernel's and ends with the process, however that ends; its file stays, unless its holder removes
    the folder with `remove_lock`.

    Raises:
        BuildError: another process writes in the folder.
    """
    lock = _opened(folder)
    while not _locked(lock, folder):
        lock.close()
        lock = _opened(folder)
    with lock:
        yield


def remove_lock(folder: Path) -> None:
    """Remove the lock's file, as its holder, and the folder if nothing else is in it."""
    (folder / _LOCK).unlink()
    with suppress(OSError):  # something else is in it
        folder.rmdir()


def _opened(folder: Path) -> IO[bytes]:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return (folder / _LOCK).open("ab")
        except FileNotFoundError:  # its holder has just removed the folder
            continue


def _locked(lock: IO[bytes], folder: Path) -> bool:
    """Lock a file; False where it is no longer the folder's, and so locks nothing.

    Raises:
        BuildError: another process has locked it.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        lock.close()
        raise BuildError(
            f"another build or edit is at work in {str(folder)!r}; wait for it, or use another folder"
        ) from exc
    try:
        return os.path.samestat((folder / _LOCK).stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False
