"""A plain training loop that keeps checkpoints as Proponent reads them: what the demo trains with.

Plain SGD, one learning rate, no momentum: the setting in which TracInCP is an exact first-order account.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import safetensors.torch
import torch

from indexer.atomic import write_atomically
from indexer.checkpoints.listing import LISTING
from indexer.checkpoints.optimizer import describe_optimizer
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

    The listing is written last: a run that dies leaves no half run behind that a build would take.
    """
    inputs, targets = read_rows(task.train, range(len(task.train)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        module = task.model().train()
        optimizer = torch.optim.SGD(module.parameters(), lr=schedule.learning_rate)
        entries, step = [], 0
        for epoch in range(1, schedule.epochs + 1):
            total = 0.0
            for rows in torch.split(torch.randperm(len(inputs)), schedule.batch_size):
                optimizer.zero_grad()
                value = task.loss(module(inputs[rows]), targets[rows])
                torch.autograd.backward(value.mean())
                optimizer.step()
                total += value.sum().item()
                step += 1
            if epoch in schedule.keep:
                name = f"epoch-{epoch:02d}.safetensors"
                write_atomically(out / name, safetensors.torch.save(module.state_dict()))
                rate = optimizer.param_groups[0]["lr"]
                entries.append({"file": name, "learning_rate": rate, "step": step, "epoch": epoch})
                entries[-1]["train_loss"] = total / len(inputs)
            progress("epochs", epoch, schedule.epochs)
    listing = {"checkpoints": entries, "optimizer": describe_optimizer(optimizer)}
    write_atomically(out / LISTING, orjson.dumps(listing, option=orjson.OPT_INDENT_2))
