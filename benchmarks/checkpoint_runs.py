"""Runs with many checkpoints, and the exact scores of every one of them: what a choice of checkpoints is tried on.

A run keeps a checkpoint at every quarter of the first two epochs and at the end of every later epoch, and notes rate,
loss and gradient norm of every step. Its products are those of TracInCP before any weight: [c, q, n] between gradients
of training examples and of the first 100 test examples at their own labels, and the square norms [c, n]. Both are
written once to a folder and read from there afterwards.
"""

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from indexer.atomic import write_atomically
from indexer.building.source import Options, open_source
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.formats.listing import LISTING
from indexer.checkpoints.run import Run
from indexer.methods.tracin import TracIn
from indexer.projection.identity import Identity
from indexer.recipes import cifar10, mnist
from indexer.record.recorder import CheckpointRecorder
from indexer.task import Task, read_rows

QUERIES = 100
BATCH = 250  # training examples whose gradients are multiplied at once
AT_ONCE = 8  # checkpoints that are kept warm together
DENSE_EPOCHS, PARTS = 2, 4  # a checkpoint at every quarter of these epochs


@dataclass(frozen=True, slots=True)
class Setting:
    """A task, how long and how fast it is trained, and in which precision its scores are made."""

    name: str
    title: str
    task: Callable[[], Task]
    true_labels: Callable[[], Sequence[str]]
    epochs: int
    learning_rate: float
    batch_size: int
    dtype: torch.dtype

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimizer, the last of an epoch with the examples that are left."""
        return -(-len(self.task().train) // self.batch_size)

    def wrong(self) -> Bool[np.ndarray, " n"]:
        """Return for each training example whether its label was flipped."""
        task = self.task()
        targets = read_rows(task.train, range(len(task.train)))[1]
        return np.array([task.label_of(y) != true for y, true in zip(targets, self.true_labels(), strict=True)])

    def folder(self, work: Path, seed: int) -> Path:
        """Return where a run and its products are kept: another schedule is another folder."""
        schedule = f"{self.epochs}-epochs-rate-{self.learning_rate:g}-batch-{self.batch_size}"
        return work / f"{self.name}-{schedule}" / f"seed-{seed}"


SETTINGS = {
    "mnist": Setting(
        "mnist", "MNIST, 4,500 digits, 5% of the labels flipped", lambda: mnist.task, lambda: mnist.true_labels,
        epochs=40, learning_rate=mnist.SCHEDULE.learning_rate, batch_size=mnist.SCHEDULE.batch_size,
        dtype=torch.float64,
    ),
    "cifar10": Setting(
        "cifar10", "CIFAR-10, 5,000 images, 10% of the labels flipped", lambda: cifar10.task,
        lambda: cifar10.true_labels, epochs=cifar10.SCHEDULE.epochs, learning_rate=cifar10.SCHEDULE.learning_rate,
        batch_size=cifar10.SCHEDULE.batch_size, dtype=torch.float32,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Products:
    """What scores are sums of, by checkpoint, before any eta."""

    steps: tuple[int, ...]
    scores: Float[np.ndarray, "c q n"]
    self_influence: Float[np.ndarray, "c n"]

    def weighted(self, etas: dict[int, float]) -> tuple[Float[np.ndarray, "q n"], Float[np.ndarray, " n"]]:
        """Return scores and self-influence of the checkpoints at some steps, each with its eta."""
        rows = [self.steps.index(step) for step in etas]
        weights = np.array(list(etas.values()))
        return np.tensordot(weights, self.scores[rows], 1), weights @ self.self_influence[rows]


def candidate_steps(steps_per_epoch: int, epochs: int) -> list[int]:
    """Return the steps at which a checkpoint is kept.

    >>> candidate_steps(8, 4)
    [2, 4, 6, 8, 10, 12, 14, 16, 24, 32]
    """
    early = [round(steps_per_epoch * part / PARTS) for part in range(1, PARTS * min(DENSE_EPOCHS, epochs) + 1)]
    return early + [steps_per_epoch * epoch for epoch in range(DENSE_EPOCHS + 1, epochs + 1)]


def train(setting: Setting, seed: int, folder: Path, say: Callable[[str], None]) -> None:
    """Train with plain SGD at one rate; the seed draws the first weights and the order of the batches, nothing else."""
    task, keep = setting.task(), candidate_steps(setting.steps_per_epoch, setting.epochs)
    inputs, targets = read_rows(task.train, range(len(task.train)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = task.model().train()
        optimizer = torch.optim.SGD(module.parameters(), lr=setting.learning_rate)
        recorder = CheckpointRecorder(folder, module, optimizer, steps_per_epoch=setting.steps_per_epoch, every=0)
        with recorder:
            for epoch in range(1, setting.epochs + 1):
                for rows in torch.split(torch.randperm(len(inputs)), setting.batch_size):
                    optimizer.zero_grad()
                    value = task.loss(module(inputs[rows]), targets[rows]).mean()
                    torch.autograd.backward(value)
                    optimizer.step()
                    recorder.record(value)
                    if recorder.step in keep:
                        recorder.save()
                say(f"{setting.name}, seed {seed}: epoch {epoch} of {setting.epochs}, loss {value.item():.3f}")


def products(task: Task, run: Run, dtype: torch.dtype, say: Callable[[str], None]) -> Products:
    """Return the products of all checkpoints of a run, one checkpoint after the other."""
    assert task.test is not None
    queries = read_rows(task.test, range(QUERIES))
    inputs, targets = read_rows(task.train, range(len(task.train)))
    train = list(zip(torch.split(inputs, BATCH), torch.split(targets, BATCH), strict=True))
    steps = tuple(checkpoint.step or 0 for checkpoint in run.checkpoints)
    scores, norms = [], []
    for start in range(0, len(steps), AT_ONCE):
        source = open_source(task, run.at(steps[start : start + AT_ONCE]), Options(dtype))
        ones = [dict.fromkeys(eta, 1.0) for eta in source.etas]
        parts = list(TracIn(source.model, ones, Identity(source.model.layout)).exact_parts(queries, train))
        scores.append(torch.cat([part for part, _ in parts], dim=1).transpose(1, 2).numpy())
        norms.append(torch.cat([norm for _, norm in parts]).T.numpy())
        say(f"{run.folder.parent.name}, {run.folder.name}: checkpoints {start + 1} to {start + len(source.etas)}")
    return Products(steps, np.concatenate(scores), np.concatenate(norms))


def run_and_products(setting: Setting, seed: int, work: Path, say: Callable[[str], None]) -> tuple[Run, Products]:
    """Return a run and its products, from the folder of work where they are there already."""
    folder = setting.folder(work, seed)
    last = candidate_steps(setting.steps_per_epoch, setting.epochs)[-1]
    if not (folder / LISTING).is_file() or open_run(folder).checkpoints[-1].step != last:
        shutil.rmtree(folder, ignore_errors=True)  # a run that was cut off
        train(setting, seed, folder, say)
    run, kept = open_run(folder), folder / "products.npz"
    if not kept.is_file():
        made = products(setting.task(), run, setting.dtype, say)
        file = io.BytesIO()
        np.savez(file, steps=made.steps, scores=made.scores, self_influence=made.self_influence)
        write_atomically(kept, file.getvalue())
    with np.load(kept) as arrays:
        return run, Products(tuple(arrays["steps"].tolist()), arrays["scores"], arrays["self_influence"])
