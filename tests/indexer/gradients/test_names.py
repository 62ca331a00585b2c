"""Which parameter, or which rows of one, a tensor is."""

import pytest
import torch
from torch import Tensor

from indexer.gradients.names import ParameterNames, Piece

WEIGHT = torch.randn(6, 4)
BIAS = torch.randn(6)
NAMES = ParameterNames({"weight": WEIGHT, "bias": BIAS})


def test_a_parameter_is_found_by_identity_and_not_by_value() -> None:
    assert NAMES.of(WEIGHT) == Piece("weight")
    assert NAMES.of(WEIGHT.clone()) is None
    assert NAMES.of(None) is None


@pytest.mark.parametrize(
    ("part", "piece"),
    [
        (WEIGHT[2:5], Piece("weight", (2, 5))),
        (WEIGHT.chunk(3)[2], Piece("weight", (4, 6))),
        (torch.split(WEIGHT, [1, 5])[0], Piece("weight", (0, 1))),
        (BIAS.chunk(3)[1], Piece("bias", (2, 4))),
        (WEIGHT.view(6, 4), Piece("weight", (0, 6))),
    ],
    ids=["slice", "chunk", "split", "vector", "all rows"],
)
def test_consecutive_rows_are_found(part: Tensor, piece: Piece) -> None:
    assert NAMES.of(part) == piece


@pytest.mark.parametrize(
    "part",
    [WEIGHT.T, WEIGHT[:, 1:3], WEIGHT[::2], WEIGHT.view(4, 6), WEIGHT.view(-1)[2:6], torch.randn(8, 4)[1:3], BIAS[0]],
    ids=["transpose", "columns", "every other row", "reshaped", "no whole row", "of something else", "a number"],
)
def test_other_views_are_no_piece(part: Tensor) -> None:
    assert NAMES.of(part) is None


def test_rows_of_a_copy_at_a_checkpoint_are_found() -> None:
    stacked = torch.randn(3, 6, 4)
    here = stacked[1].detach()
    assert ParameterNames({"weight": here}).of(here[4:]) == Piece("weight", (4, 6))
