"""Stopping a program at its durable steps: the calls that make bytes lasting, or give a file its name."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

STEPS = ("fsync", "replace")  # what `pathlib` and `tempfile` end in, too


class Crash(BaseException):
    """The end of the process, as far as a test goes on in it: nothing of ours catches it."""


def crash() -> None:
    """End here."""
    raise Crash


def full() -> None:
    """Find the disk full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def leave() -> None:
    """End the process at once, as a kill does: no ``finally`` runs."""
    os._exit(9)


@dataclass
class Stops:
    """Counts durable steps, and stops before the one of a number, from 1 on; every later one is stopped as well.

    after: stops after it instead; only: the kind of steps that count. fsync itself is left out: it takes time, and
    nobody pulls the plug.
    """

    at: int
    stop: Callable[[], None]
    only: tuple[str, ...] = STEPS
    after: bool = False
    seen: int = 0
    _real: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "Stops":
        """Take the place of the calls until the test ends or undoes it."""
        for name in STEPS:
            self._real[name] = (lambda descriptor: None) if name == "fsync" else getattr(os, name)
            monkeypatch.setattr(os, name, lambda *args, name=name, **more: self._step(name, args, more))
        return self

    def _step(self, name: str, args: tuple[Any, ...], more: dict[str, Any]) -> Any:
        self.seen += name in self.only
        due = name in self.only and self.seen >= self.at
        if due and not self.after:
            self.stop()
        found = self._real[name](*args, **more)
        if due:
            self.stop()
        return found


def in_child(run: Callable[[], object]) -> int:
    """Run in a forked process, and return its exit status: 0 if the run ends, 1 if it raises."""
    return status(forked(run))


def forked(run: Callable[[], object]) -> int:
    """Start a run in a process of its own and return its id."""
    child = os.fork()
    if child == 0:
        done = 1
        try:
            run()
            done = 0
        finally:
            os._exit(done)
    return child


def status(child: int) -> int:
    """Wait for a process, and return its exit status."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
