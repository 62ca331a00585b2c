"""Losses of sequence models against sums written out token by token."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from indexer.errors import TaskError
from indexer.losses import next_token_cross_entropy, reduce_tokens, token_cross_entropy

ROUNDING = 1e-12  # float64, sums of a few terms


def by_hand(logits: Tensor, targets: Tensor, ignore: int, reduction: str) -> Tensor:
    """Every example and token in turn."""
    losses = []
    for rows, labels in zip(logits, targets, strict=True):
        own = [F.cross_entropy(row, label) for row, label in zip(rows, labels, strict=True) if label != ignore]
        total = sum(own, torch.zeros((), dtype=logits.dtype))
        losses.append(total / max(len(own), 1) if reduction == "mean" else total)
    return torch.stack(losses)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("ignore", [-100, 0, 4])
def test_each_example_counts_its_own_tokens(reduction: str, ignore: int) -> None:
    logits = torch.randn(4, 6, 5, dtype=torch.float64)
    targets = torch.randint(0, 5, (4, 6))
    targets[0, 2:] = ignore
    targets[1, :] = ignore
    found = token_cross_entropy(logits, targets, ignore=ignore, reduction=reduction)
    torch.testing.assert_close(found, by_hand(logits, targets, ignore, reduction), rtol=ROUNDING, atol=ROUNDING)
    assert found[1] == 0
    shifted = next_token_cross_entropy(logits, targets, ignore=ignore, reduction=reduction)
    expected = by_hand(logits[:, :-1], targets[:, 1:], ignore, reduction)
    torch.testing.assert_close(shifted, expected, rtol=ROUNDING, atol=ROUNDING)


def test_what_stands_at_ignored_tokens_has_no_say() -> None:
    losses = torch.tensor([[1.0, float("nan")], [float("inf"), 2.0]], dtype=torch.float64)
    counts = torch.tensor([[True, False], [False, True]])
    assert reduce_tokens(losses, counts).tolist() == [1.0, 2.0]


def test_another_reduction_is_refused() -> None:
    with pytest.raises(TaskError, match="reduction='none': expected 'mean' or 'sum', both over the tokens of one"):
        reduce_tokens(torch.ones(2, 3), torch.ones(2, 3), "none")
