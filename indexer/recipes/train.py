"""A plain training loop that is recorded as Proponent reads it: what the demo trains with.

Plain SGD, one learning rate, no momentum: the setting in which TracInCP is an exact first-order account.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from indexer.checkpoints.formats.listing import LISTING
from indexer.record.recorder import CheckpointRecorder
from indexer.task import Task, read_rows


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, how fast, and after which epochs a checkpoint is kept."""

    epochs: int
    keep: Sequence[int]
    learning_rate: float
    batch_size: int = 64
    seed: int = 0


def train(task: Task, schedule: Schedule, out: Path, progress: Callable[[str, int, int], None]) -> None:
    """Train a fresh model of the task and write the kept checkpoints and their listing to ``out``.

    A recording lists what is complete so far. It is moved to ``out`` when it is complete itself, the listing last: a
    run that dies leaves nothing that a build would take for the whole.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".new-") as unfinished:
        _train(task, schedule, Path(unfinished), progress)
        for path in sorted(Path(unfinished).iterdir(), key=lambda path: path.name == LISTING):
            path.replace(out / path.name)


def _train(task: Task, schedule: Schedule, out: Path, progress: Callable[[str, int, int], None]) -> None:
    inputs, targets = read_rows(task.train, range(len(task.train)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        module = task.model().train()
        optimizer = torch.optim.SGD(module.parameters(), lr=schedule.learning_rate)
        steps = math.ceil(len(inputs) / schedule.batch_size)
        with CheckpointRecorder(out, module, optimizer, steps_per_epoch=steps, every=0) as recorder:
            for epoch in range(1, schedule.epochs + 1):
                for rows in torch.split(torch.randperm(len(inputs)), schedule.batch_size):
                    optimizer.zero_grad()
                    loss = task.loss(module(inputs[rows]), targets[rows]).mean()
                    torch.autograd.backward(loss)
                    optimizer.step()
                    recorder.record(loss)
                if epoch in schedule.keep:
                    recorder.save(f"epoch-{epoch:02d}")
                progress("epochs", epoch, schedule.epochs)
