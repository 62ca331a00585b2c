"""Losses of sequence models: one number an example, from one loss a token.

A task's loss gives one number an example. For a model that predicts every token, that is the mean over the example's
own tokens that count, as it was trained; their sum is another loss, and must be asked for.

    task = Task(loss=lambda logits, tokens: next_token_cross_entropy(logits, tokens, ignore=PAD), ...)
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from indexer.errors import TaskError

IGNORED = -100  # PyTorch's own mark of a target that does not count


def token_cross_entropy(
    logits: Float[Tensor, "b t v"],
    targets: Int[Tensor, "b t"],
    *,
    ignore: int = IGNORED,
    reduction: str = "mean",
) -> Float[Tensor, " b"]:
    """Return the cross-entropy of every example, in nats: over its tokens whose target is not ``ignore``.

    reduction: ``mean`` or ``sum`` over the tokens of one example. An example without such a token has loss 0.

    >>> logits = torch.zeros(1, 3, 4)
    >>> token_cross_entropy(logits, torch.tensor([[2, 1, -100]])).item() == torch.tensor(4.0).log().item()
    True
    """
    losses = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=ignore, reduction="none")
    return reduce_tokens(losses, targets != ignore, reduction)


def next_token_cross_entropy(
    logits: Float[Tensor, "b t v"],
    tokens: Int[Tensor, "b t"],
    *,
    ignore: int = IGNORED,
    reduction: str = "mean",
) -> Float[Tensor, " b"]:
    """Return the loss of a causal language model: the logits at a token are held against the token after it."""
    return token_cross_entropy(logits[:, :-1], tokens[:, 1:], ignore=ignore, reduction=reduction)


def reduce_tokens(losses: Float[Tensor, "b t"], counts: Tensor, reduction: str = "mean") -> Float[Tensor, " b"]:
    """Return one loss an example from one a token; counts [b, t]: which tokens count.

    Raises:
        TaskError: the reduction is neither ``mean`` nor ``sum``.
    """
    share = counts.to(losses.dtype)
    total = torch.where(counts.bool(), losses, torch.zeros_like(losses)).sum(1)
    if reduction == "sum":
        return total
    if reduction != "mean":
        raise TaskError(f"reduction={reduction!r}: expected 'mean' or 'sum', both over the tokens of one example")
    return total / share.sum(1).clamp_min(1)
