"""The demo: 4,500 real MNIST digits, 5% of their labels flipped, and a small convolutional network.

proponent build indexer.recipes.mnist:task --checkpoints runs/mnist --out indexes/mnist
"""

from importlib.resources import files

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from indexer.codecs import ImageCodec
from indexer.recipes.train import Schedule
from indexer.task import Task

SCHEDULE = Schedule(epochs=12, keep=(1, 2, 4, 8, 12), learning_rate=0.1)

_SAMPLE = files("indexer.recipes") / "data" / "mnist_sample.npz"


def model() -> nn.Module:
    """Two convolutions and one linear layer: [b, 1, 28, 28] -> [b, 10], 7,946 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 3 * 3, 10),
    )  # fmt: skip


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every example, in nats."""
    return F.cross_entropy(outputs, targets, reduction="none")


def sample() -> dict[str, np.ndarray]:
    """Return the arrays of the shipped sample; see `indexer.recipes.mnist_sample`."""
    with _SAMPLE.open("rb") as file, np.load(file) as arrays:
        return dict(arrays)


def _examples(images: np.ndarray, labels: np.ndarray) -> TensorDataset:
    return TensorDataset(torch.from_numpy(images).float().div(255)[:, None], torch.from_numpy(labels).long())


_arrays = sample()
train_set = _examples(_arrays["x_train"], _arrays["y_train"])
test_set = _examples(_arrays["x_test"], _arrays["y_test"])

true_labels = [str(digit) for digit in _arrays["true_train"]]

task = Task(
    model=model,
    loss=loss,
    train=train_set,
    test=test_set,
    codec=ImageCodec(size=(28, 28), channels=1),
    labels=[str(digit) for digit in range(10)],
)
