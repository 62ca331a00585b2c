"""The task of the golden index: bars in 4 x 4 images, standing or lying, and a logistic model."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from indexer import ImageCodec, Task

_STANDING = [[[column == at for column in range(4)] for _ in range(4)] for at in range(3)]
_LYING = [[[row == at] * 4 for row in range(4)] for at in range(3)]


def model() -> nn.Module:
    """[b, 1, 4, 4] -> [b, 2]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every example."""
    return F.cross_entropy(outputs, targets, reduction="none")


def images(bars: list[list[list[bool]]]) -> Tensor:
    """Bars as [b, 1, 4, 4], black and white."""
    return torch.tensor(bars).float()[:, None]


task = Task(
    model=model,
    loss=loss,
    train=TensorDataset(images(_STANDING + _LYING), torch.tensor([0, 0, 1, 1, 1, 1])),  # row 2: a wrong label
    test=TensorDataset(images([_STANDING[2], _LYING[0]]), torch.tensor([0, 1])),
    codec=ImageCodec(size=(4, 4), channels=1),
    labels=["standing", "lying"],
)
