"""One writer at a time in the folder of an index: a build, an edit or a pruning. Readers need no lock."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.errors import BuildError


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Be the only writer in a folder, which is made where it does not exist.

    The lock is the kernel's and ends with the process, however that ends; its file stays.

    Raises:
        BuildError: another process writes in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise BuildError(
                f"another build or edit is at work in {str(folder)!r}; wait for it, or use another folder"
            ) from exc
        yield
