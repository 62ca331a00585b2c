"""The smallest task that has everything a build makes: a linear model on 2 x 2 pictures, two checkpoints, two splits.

Builds of it take a tenth of a second, for tests that stop and repeat many of them.
"""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from indexer import BuildSpec, ImageCodec, Task
from indexer.recipes.train import Schedule, train
from tests.tiny import cross_entropy

ROWS, QUERIES, BATCH = 12, 3, 4


def micro_model() -> nn.Module:
    """[b, 1, 2, 2] -> [b, 3]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


def pictures(count: int, seed: int) -> TensorDataset:
    """Random pictures in three classes."""
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 1, 2, 2, generator=generator), torch.arange(count) % 3)


def micro_task() -> Task:
    """12 training examples and 3 to ask about."""
    return Task(
        model=micro_model,
        loss=cross_entropy,
        train=pictures(ROWS, seed=1),
        test=pictures(QUERIES, seed=2),
        codec=ImageCodec(size=(2, 2), channels=1),
        labels=["a", "b", "c"],
    )


def micro_run(folder: Path) -> Path:
    """Train for two epochs and keep both checkpoints."""
    torch.manual_seed(0)
    schedule = Schedule(epochs=2, keep=(1, 2), learning_rate=0.1, batch_size=4)
    train(micro_task(), schedule, folder, lambda stage, done, total: None)
    return folder


def micro_spec(run: Path, card_queries: int = QUERIES) -> BuildSpec:
    """Three batches, coded rows with bases: every kind of object."""
    return BuildSpec(run, bytes_per_example=16, batch_size=BATCH, card_queries=card_queries)
