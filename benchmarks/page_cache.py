"""Memory for files: how much a process may have of it, and forgetting what is there. Linux alone.

A memory group of the kernel (cgroup, version 1 or 2) counts the pages of files that its processes have read. At its
limit the oldest pages go: an index that does not fit behaves as on a machine that is as small.
"""

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LIMITS = ("memory.max", "memory.limit_in_bytes")  # of version 2, and of version 1
DONTNEED = 4  # MADV_DONTNEED of a mapping of a file: its pages are read again when they are looked at
ENTER = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A group of processes that have so much memory together, pages of files included."""

    folder: Path

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs another one in the group."""
        return ["sh", "-c", ENTER, str(self.folder), *command]


@contextmanager
def memory_group(parent: Path, limit: int) -> Iterator[MemoryGroup]:
    """Make a group below another one, limited to so many bytes, for as long as the block runs.

    Raises:
        SystemExit: the folder is no memory group, or may not be written to.
    """
    folder = parent / f"proponent-{os.getpid()}"
    try:
        folder.mkdir()
        name = next((name for name in LIMITS if (folder / name).exists()), None)
        if name is None:
            raise SystemExit(f"expected a folder of memory groups, found none of {LIMITS} below {str(parent)!r}")
        (folder / name).write_text(str(limit))
        yield MemoryGroup(folder)
    except PermissionError as exc:
        raise SystemExit(f"a memory group below {str(parent)!r} can be made by root alone: {exc}") from exc
    finally:
        if folder.is_dir():
            folder.rmdir()


def forget(folder: Path) -> None:
    """Drop every page of the files of a folder, those that this process has mapped too: the next look goes to disk.

    Raises:
        OSError: the system does not want to.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for start, size in mapped(folder):
        if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), DONTNEED):
            raise OSError(ctypes.get_errno(), "madvise")
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def mapped(folder: Path) -> list[tuple[int, int]]:
    """Return address and bytes of every mapping of a file in a folder."""
    inside, found = f"{folder.resolve()}/", []
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, *_, path = line.split(maxsplit=5)
        if path.startswith(inside):
            first, last = (int(address, 16) for address in addresses.split("-"))
            found.append((first, last - first))
    return found
