"""Real photographs: 5,000 images of CIFAR-10, 10% of their labels flipped, and a small convolutional network.

    export PROPONENT_DATA=data
    proponent build indexer.recipes.cifar10:task --checkpoints runs/cifar10 --out indexes/cifar10

The images (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009) are not shipped. They are read
when ``task``, ``train_set``, ``test_set`` or ``true_labels`` is first asked for, from cifar10/cifar10_subset.npz below
the folder that PROPONENT_DATA names (./data without it): x_train uint8 [n, 32, 32, 3], y_train uint8 [n], x_test and
y_test alike, and label_names, ten strings. Importing this module reads nothing.
"""

import os
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from indexer.codecs import ImageCodec
from indexer.errors import TaskError
from indexer.recipes.train import Schedule
from indexer.task import Task

SCHEDULE = Schedule(
    epochs=25, keep=(2, 5, 10, 15, 25), learning_rate=0.02,
    batch_size=50,  # divides 5,000: a last batch of a few examples would throw the weights about before a checkpoint
)  # fmt: skip
PROJECTION = {"name": "rank1", "numbers": 1024, "seed": 0}
FILE = Path("cifar10") / "cifar10_subset.npz"  # below the folder of the data
FLIPPED = 0.1  # share of the training labels
SEED = 0
MEAN, STD = (125.31, 122.95, 113.87), (62.99, 62.09, 66.70)  # of the channels of the 50,000 training images, in 0..255

task: Task
train_set: TensorDataset
test_set: TensorDataset
true_labels: list[str]

_ARRAYS = ("x_train", "y_train", "x_test", "y_test", "label_names")


class Normalise(nn.Module):
    """Pixels [b, 3, 32, 32] in 0..1 -> (pixel - mean) / std of its channel.

    In the model and not in the data: the codec and its previews then keep plain pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None] / 255)
        self.register_buffer("std", torch.tensor(STD)[:, None, None] / 255)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the normalised pixels."""
        return (pixels - self.mean) / self.std


def model() -> nn.Module:
    """Three convolutions and one linear layer: [b, 3, 32, 32] -> [b, 10], 68,426 parameters.

    GroupNorm, for what an example's gradient is must not depend on the other examples of a batch.
    """
    return nn.Sequential(
        Normalise(),
        nn.Conv2d(3, 32, 5, stride=2, padding=2), nn.GroupNorm(8, 32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.GroupNorm(8, 64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.GroupNorm(8, 64), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 4 * 4, 10),
    )  # fmt: skip


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every example, in nats."""
    return F.cross_entropy(outputs, targets, reduction="none")


def flip(labels: UInt8[np.ndarray, " n"], share: float, classes: int, seed: int) -> UInt8[np.ndarray, " n"]:
    """Return the labels, the given share of them replaced by another class, drawn uniformly.

    >>> flip(np.array([0, 1, 1, 0], dtype=np.uint8), 0.5, 2, seed=0).tolist()
    [0, 1, 0, 1]
    """
    rng = np.random.default_rng(seed)
    given = labels.copy()
    rows = rng.choice(len(given), round(share * len(given)), replace=False)
    given[rows] = (given[rows] + rng.integers(1, classes, len(rows))) % classes
    return given


def sample(folder: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the file below a folder.

    Raises:
        TaskError: there is no such file, or it lacks an array.
    """
    path = folder / FILE
    if not path.is_file():
        raise TaskError(
            f"expected images of CIFAR-10 at {str(path)!r}, found no file; set PROPONENT_DATA to the folder that has "
            f"{FILE.as_posix()} (what it must hold is written in indexer/recipes/cifar10.py)"
        )
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return {name: arrays[name] for name in _ARRAYS}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as exc:
        raise TaskError(
            f"{str(path)!r}: expected the arrays {', '.join(_ARRAYS)}: {exc}; fetch the file again"
        ) from exc


def __getattr__(name: str) -> Any:
    """Read the data when they are first asked for.

    Raises:
        AttributeError: as every module's.
    """
    if name not in __annotations__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _read(Path(os.environ.get("PROPONENT_DATA", "data")))[name]


@cache
def _read(folder: Path) -> dict[str, Any]:
    """Return what the module offers of the data below a folder, by name."""
    arrays = sample(folder)
    names = [str(name) for name in arrays["label_names"]]
    given = flip(arrays["y_train"], FLIPPED, len(names), SEED)
    train, test = _examples(arrays["x_train"], given), _examples(arrays["x_test"], arrays["y_test"])
    codec = ImageCodec(size=(32, 32), channels=3)
    return {
        "task": Task(model=model, loss=loss, train=train, test=test, codec=codec, labels=names),
        "train_set": train,
        "test_set": test,
        "true_labels": [names[label] for label in arrays["y_train"]],
    }


def _examples(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float().div(255).contiguous()
    return TensorDataset(pixels, torch.from_numpy(labels).long())
