"""Tasks over a neutral workload: a folder with data.npz, five checkpoints, and exact scores made by other code.

    PROPONENT_BENCH=bench proponent evaluate exact benchmarks/neutral_task.py:cnn --checkpoints bench/cnn --out exact

The folder ``cnn`` or ``mlp`` below PROPONENT_BENCH holds data.npz (x_train, y_train, x_test, y_test; images [1, 28, 28]
already normalised), checkpoints.json, exact.npy [50, 4500] and self_exact.npy [4500].
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

from indexer import ImageCodec, Task
from indexer.recipes.mnist import loss


def workload(name: str) -> Path:
    """Return the folder of one model's workload.

    Raises:
        SystemExit: PROPONENT_BENCH does not name a folder that has it.
    """
    folder = Path(os.environ.get("PROPONENT_BENCH", "")) / name
    if not (folder / "data.npz").is_file():
        raise SystemExit(f"PROPONENT_BENCH must name a folder that has {name}/data.npz; see {Path(__file__).name}")
    return folder


def cnn_model() -> nn.Module:
    """Two convolutions, two linear layers; 207,178 parameters."""
    convolutions = [nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    convolutions += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 10))


def mlp_model() -> nn.Module:
    """784-512-256-10; 535,818 parameters."""
    hidden = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, 10))


MODELS: dict[str, Callable[[], nn.Module]] = {"cnn": cnn_model, "mlp": mlp_model}


def neutral_task(name: str, rows: int | None = None) -> Task:
    """Return the task of one model, on the first ``rows`` training examples or on all."""
    with np.load(workload(name) / "data.npz") as arrays:
        data = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    kept = slice(rows)
    return Task(
        model=MODELS[name],
        loss=loss,
        train=TensorDataset(data["x_train"][kept], data["y_train"][kept]),
        test=TensorDataset(data["x_test"], data["y_test"]),
        codec=ImageCodec((28, 28), 1, mean=0.1307, std=0.3081),
        labels=[str(digit) for digit in range(10)],
    )


def __getattr__(name: str) -> Task:
    """Make ``cnn`` and ``mlp`` when they are asked for: reading the data is not for importers.

    Raises:
        AttributeError: as every module's.
    """
    if name in MODELS:
        return neutral_task(name)
    raise AttributeError(name)
