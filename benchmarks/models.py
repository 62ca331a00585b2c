"""The four models whose gradients are timed, each with real data: MLP, CNN, a small transformer, ResNet-20.

MNIST is the shipped sample. DBpedia and CIFAR-10 lie below PROPONENT_DATA (default ./data), as
dbpedia/dbpedia_train.csv.gz (columns label 1..14, title, abstract) and cifar10/cifar10_subset.npz (x_train uint8
[n, 32, 32, 3], y_train). Weights are random, with a fixed seed: the time of a gradient does not depend on them.
"""

import csv
import gzip
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.neutral_task import cnn_model, mlp_model
from indexer.recipes.mnist import train_set

SEED = 0
WORDS, TOKENS, CLASSES = 8000, 64, 14  # of the text classifier; word 0 is padding
CIFAR_MEAN, CIFAR_STD = (125.31, 122.95, 113.87), (62.99, 62.09, 66.70)  # of the 50,000 training images
SETTLING_BATCHES, SETTLING_ROWS = 5, 64  # real examples that give BatchNorm its running statistics

Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Workload:
    """A model in ``eval()`` mode with the data that it would be trained on.

    channels_last: whether an index of it is built with channels as the innermost axis;
    goal: the most that rank1 may cost, as a multiple of the fastest plain step.
    """

    name: str
    module: nn.Module
    data: Examples
    channels_last: bool
    goal: float

    def first(self, b: int) -> Examples:
        """Return the first b examples.

        Raises:
            ValueError: there are not so many.
        """
        inputs, targets = self.data
        if not 0 < b <= len(inputs):
            raise ValueError(f"batch {b}: {self.name} has {len(inputs):,} examples")
        return inputs[:b], targets[:b]


def workload(name: str) -> Workload:
    """Return a model of `WORKLOADS` with its data.

    Raises:
        FileNotFoundError: its data are not below PROPONENT_DATA.
    """
    make, read, channels_last, goal = WORKLOADS[name]
    data = read()
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        module = make()
    _settle(module, data[0])
    return Workload(name, module.eval(), data, channels_last, goal)


class TextClassifier(nn.Module):
    """Tokens [b, t] -> [b, 14]: a pre-norm transformer encoder and the mean over tokens that are no padding."""

    def __init__(self, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width, padding_idx=0)
        self.positions = nn.Embedding(TOKENS, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits."""
        padding = tokens == 0
        x = self.words(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        x = self.encoder(x, src_key_padding_mask=padding)
        kept = (~padding)[..., None].to(x.dtype)
        logits: Tensor = self.head((x * kept).sum(1) / kept.sum(1))
        return logits


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (He et al. 2015, option A).

    Where channels double, the shortcut takes every second pixel and pads with channels of zeros.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride, self.padded = (1, 0) if before == after else (2, after - before)
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(f(x) + shortcut(x))."""
        shortcut = x
        if self.padded:
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.padded))
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + shortcut)


def resnet20() -> nn.Module:
    """ResNet-20 for CIFAR (He et al. 2015, section 4.2): [b, 3, 32, 32] -> [b, 10], 0.27 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for before, width in ((16, 16), (16, 32), (32, 64)):
        layers += [Residual(before, width), Residual(width, width), Residual(width, width)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def mnist() -> Examples:
    """Return the shipped digits [n, 1, 28, 28] and their labels."""
    inputs, targets = train_set.tensors
    return inputs, targets


def cifar10() -> Examples:
    """Return images [n, 3, 32, 32], normalised by channel, and their labels."""
    with np.load(_below_data("cifar10/cifar10_subset.npz")) as arrays:
        images, labels = torch.from_numpy(arrays["x_train"]), torch.from_numpy(arrays["y_train"])
    normalised = (images.float() - torch.tensor(CIFAR_MEAN)) / torch.tensor(CIFAR_STD)
    return normalised.permute(0, 3, 1, 2).contiguous(), labels.long()


def dbpedia() -> Examples:
    """Return the first 64 words of title and abstract, hashed, and the class 0..13."""
    with gzip.open(_below_data("dbpedia/dbpedia_train.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    tokens = torch.tensor([_tokens(f"{row['title']} {row['abstract']}") for row in rows])
    return tokens, torch.tensor([int(row["label"]) - 1 for row in rows])


def _tokens(text: str) -> list[int]:
    """Hash words to 1..7999, and pad with 0."""
    words = re.findall(r"\w+", text.lower())[:TOKENS]
    hashed = [1 + zlib.crc32(word.encode()) % (WORDS - 1) for word in words]
    return hashed + [0] * (TOKENS - len(hashed))


def _below_data(path: str) -> Path:
    """Return a path below PROPONENT_DATA.

    Raises:
        FileNotFoundError: it is not there.
    """
    found = Path(os.environ.get("PROPONENT_DATA", "data")) / path
    if not found.is_file():
        raise FileNotFoundError(f"{found} is absent; PROPONENT_DATA names the folder that has {path}")
    return found


def _settle(module: nn.Module, inputs: Tensor) -> None:
    """Give BatchNorm the mean statistics of a few real batches."""
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # PyTorch's word for: the plain mean over batches
    with torch.no_grad():
        module.train()
        for batch in torch.split(inputs[: SETTLING_BATCHES * SETTLING_ROWS], SETTLING_ROWS):
            module(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


WORKLOADS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Examples], bool, float]] = {
    "mlp": (mlp_model, mnist, False, 0.80),
    "cnn": (cnn_model, mnist, True, 1.10),
    "transformer": (TextClassifier, dbpedia, False, 1.00),
    "resnet": (resnet20, cifar10, True, 1.10),
}
