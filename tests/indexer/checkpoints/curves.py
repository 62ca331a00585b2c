"""Runs that only have losses, for the tests of what is chosen by them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from indexer.checkpoints.history import history
from indexer.checkpoints.run import Checkpoint, Run

STEPS = 10_000
EVERY = tuple(range(500, STEPS + 1, 500))


def steps() -> np.ndarray:
    """The steps of a long run."""
    return np.arange(1.0, STEPS + 1)


def decay(lasting: float = 1500.0) -> np.ndarray:
    """[STEPS]: from 2.3 to 0.1, by 1/e in so many steps."""
    return np.asarray(2.2 * np.exp(-steps() / lasting) + 0.1)


def run_of(losses: Iterable[float], at: Sequence[int | None], noted: Sequence[int] | None = None) -> Run:
    """A run with a loss at every step, or at the noted ones, and checkpoints at some."""
    values = list(losses)
    where = list(range(1, len(values) + 1)) if noted is None else list(noted)
    checkpoints = tuple(Checkpoint(Path(f"{number}.pt"), step=step) for number, step in enumerate(at, 1))
    return Run(Path("runs/made"), "made", checkpoints, history(where, None, values))


def short(*losses: float) -> Run:
    """A run of a few checkpoints, each with the loss at its step, from step 1 on."""
    return run_of(losses, range(1, len(losses) + 1))
