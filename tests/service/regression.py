"""A regression on the mean of four pixels, as a task that a server can be told: `tests.service.regression:task`."""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from indexer import BuildSpec, ImageCodec, Task, build
from indexer.checkpoints.formats.listing import LISTING

ROWS = 30


def model() -> nn.Module:
    """[b, 1, 2, 2] -> [b, 1]."""
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 1))


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error of every example."""
    return (outputs[:, 0] - targets).square()


def _examples() -> TensorDataset:
    pixels = torch.randint(0, 256, (ROWS, 1, 2, 2), generator=torch.Generator().manual_seed(0)).float() / 255
    return TensorDataset(pixels, pixels.mean(dim=(1, 2, 3)))


task = Task(model=model, loss=loss, train=_examples(), codec=ImageCodec(size=(2, 2), channels=1))


def regression_index(home: Path) -> Path:
    """Build an index of the task at one checkpoint, its weights all 0.25 but for a bias of 0.5."""
    weights = {"1.weight": torch.full((1, 4), 0.25), "1.bias": torch.full((1,), 0.5)}
    run = home / "run"
    run.mkdir()
    (run / "only.safetensors").write_bytes(safetensors.torch.save(weights))
    (run / LISTING).write_text('{"checkpoints": [{"file": "only.safetensors", "learning_rate": 0.1}]}')
    return build(task, BuildSpec(run, projection={"name": "identity"}), home / "regression").folder
