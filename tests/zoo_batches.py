"""Losses and batches for the models of the zoo: one number an example, and as many examples as asked for."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Batch = tuple[Tensor, Tensor]
PADDING = 0
VOCABULARY = 11
CLASSES = 3
IGNORED = -100  # a target that does not count, as in PyTorch


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over an example's numbers: pixels, or the one it predicts."""
    return (outputs - targets).square().flatten(1).mean(1)


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy [b] of logits [b, t, v], the mean over an example's targets [b, t] that count."""
    losses = F.cross_entropy(outputs.transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
    return losses.sum(1) / (targets != IGNORED).sum(1)


def next_token_loss(outputs: Tensor, tokens: Tensor) -> Tensor:
    """Every token but the first, from what was before it; padding does not count."""
    following = tokens[:, 1:]
    return token_loss(outputs[:, :-1], following.masked_fill(following == PADDING, IGNORED))


def classes(b: int) -> Tensor:
    """A class for each example."""
    return torch.arange(b) % CLASSES


def images(channels: int) -> Callable[[int], Batch]:
    """Pictures of 8 x 8 with a class."""
    return lambda b: (torch.randn(b, channels, 8, 8), classes(b))


def sequences(b: int) -> Batch:
    """Five vectors, and a class."""
    return torch.randn(b, 5, 6), classes(b)


def padded(b: int, length: int) -> Tensor:
    """Tokens [b, length] of different lengths, padding at the end; at least three are words."""
    tokens = torch.randint(1, VOCABULARY, (b, length))
    ends = torch.arange(b) % (length - 2) + 3
    return tokens.masked_fill(torch.arange(length) >= ends[:, None], PADDING)


def sentences(b: int) -> Batch:
    """Padded tokens with a class."""
    return padded(b, 8), classes(b)


def translations(b: int) -> Batch:
    """Tokens, the last four of which are to be written from those before; no padding."""
    tokens = torch.randint(1, VOCABULARY, (b, 10))
    return tokens[:, :-1], tokens[:, -4:]


def masked(b: int) -> Batch:
    """Padded tokens of which every third is hidden behind the token 3 and is to be found."""
    tokens = padded(b, 7)
    hidden = (torch.arange(7) % 3 == 1) & (tokens != PADDING)
    return tokens.masked_fill(hidden, 3), tokens.masked_fill(~hidden, IGNORED)


def texts(b: int) -> Batch:
    """Padded tokens that are their own targets."""
    tokens = padded(b, 7)
    return tokens, tokens


def pictures(b: int) -> Batch:
    """Pictures and what to draw from them."""
    return torch.randn(b, 2, 8, 8), torch.randn(b, 1, 8, 8)


def numbers(b: int) -> Batch:
    """Vectors with a number."""
    return torch.randn(b, 6), torch.randn(b, 1)
