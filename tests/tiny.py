"""A task that is small enough for exact answers in every test, on real digits of the shipped sample."""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset

from indexer import ImageCodec, Task
from indexer.recipes.mnist import test_set as mnist_test
from indexer.recipes.mnist import train_set as mnist_train
from indexer.recipes.train import Schedule, train

LABELS = [str(digit) for digit in range(10)]


def tiny_model() -> nn.Module:
    """[b, 1, 28, 28] -> [b, 10] with 410 parameters: one strided convolution, one linear layer."""
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 10),
    )


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """One loss an example."""
    return F.cross_entropy(outputs, targets, reduction="none")


def head(examples: Dataset[tuple[Tensor, ...]], count: int) -> Subset[tuple[Tensor, ...]]:
    """The first examples of a data set."""
    return Subset(examples, range(count))


def tiny_task(rows: int = 300) -> Task:
    """The first digits of the shipped sample."""
    return Task(
        model=tiny_model,
        loss=cross_entropy,
        train=head(mnist_train, rows),
        test=head(mnist_test, 100),
        codec=ImageCodec(size=(28, 28), channels=1),
        labels=LABELS,
    )


def tiny_run(task: Task, folder: Path) -> Path:
    """Train for a few epochs and keep three checkpoints."""
    train(
        task,
        Schedule(epochs=6, keep=(1, 3, 6), learning_rate=0.1, batch_size=8),
        folder,
        lambda stage, done, total: None,
    )
    return folder
