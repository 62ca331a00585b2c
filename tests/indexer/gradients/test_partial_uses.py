"""Uses of several rows of a batch, and of some rows of a parameter, against what they stand for."""

import pytest
import torch
from torch import Tensor

from indexer.gradients.partial_uses import Repeated, Rows
from indexer.gradients.uses import EmbeddingUse, LinearUse, Use
from tests.indexer.gradients.test_uses import assert_agrees


def _randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def linear(b: int, *positions: int) -> LinearUse:
    return LinearUse(_randn(b, *positions, 4), _randn(b, *positions, 5), bias=True)


def embedding(b: int) -> EmbeddingUse:
    return EmbeddingUse(torch.randint(0, 4, (b, 2)), _randn(b, 2, 5), 4)


USES = pytest.mark.parametrize("use", [linear(6), linear(6, 2), embedding(6)], ids=["linear", "positions", "tokens"])


@USES
@pytest.mark.parametrize("times", [1, 2, 3])
def test_rows_of_one_example_add_up(use: Use, times: int) -> None:
    dense = use.sandwich(None, None)
    expected = torch.stack([sum(dense[i * times + j] for j in range(times)) for i in range(6 // times)])  # type: ignore[misc]
    assert_agrees(Repeated(use, times), expected)


@USES
def test_some_rows_of_a_parameter_leave_the_others_at_zero(use: Use) -> None:
    dense = use.sandwich(None, None)
    expected = torch.zeros(6, 9, dense.shape[2], dtype=torch.float64)
    expected[:, 3:7] = dense
    assert_agrees(Rows(use, (3, 7), 9), expected)


def test_both_at_once() -> None:
    use = linear(6)
    dense = use.sandwich(None, None)
    expected = torch.zeros(3, 9, dense.shape[2], dtype=torch.float64)
    expected[:, 3:7] = dense[0::2] + dense[1::2]
    assert_agrees(Rows(Repeated(use, 2), (3, 7), 9), expected)
