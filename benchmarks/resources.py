"""What a process takes that is watched from outside: its time, and the most memory that is its own.

Pages of files that are mapped count as resident while they lie in memory, and the system takes them back when somebody
needs the room: of an index that is larger than memory, what must fit is what is *anonymous*. Linux counts both in
/proc/PID/status, RssAnon and RssFile; they are read many times a second, because only their sum has a highest mark.
"""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY = 0.02  # seconds between two looks: what is held for less is not seen


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds, the most anonymous and the most mapped memory in bytes, and what the process printed."""

    seconds: float
    anonymous: int
    mapped: int
    said: str


def watched(command: Sequence[str]) -> Used:
    """Run a command to its end and return what it took.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    start, highest = time.perf_counter(), {"RssAnon": 0, "RssFile": 0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            for name, now in memory_of(process.pid).items():
                highest[name] = max(highest[name], now)
            time.sleep(EVERY)
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, said)
    return Used(time.perf_counter() - start, highest["RssAnon"], highest["RssFile"], said)


def memory_of(pid: int | str = "self") -> dict[str, int]:
    """Return RssAnon and RssFile of a process in bytes; 0 where it has none any more."""
    found = {"RssAnon": 0, "RssFile": 0}
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return found
    for line in lines:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = 1024 * int(value.split()[0])
    return found


def read_from_disk() -> int:
    """Return the bytes that this process has had to wait for the disk for, so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])
