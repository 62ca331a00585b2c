"""Numbers of Python, of NumPy and of torch, and what is none."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from indexer.errors import RecordError
from indexer.record.numbers import Number, checked_every, checked_loss, count, floats


@pytest.mark.parametrize(
    "value", [4, 4.0, np.int64(4), np.ceil(10 / 3), np.float32(4), torch.tensor(4), torch.tensor(4.0), Fraction(4)]
)
def test_a_count_is_pythons_own(value: Any) -> None:
    found = count(value, "step", 0, "a number")
    assert found == 4 and type(found) is int


@pytest.mark.parametrize(
    "value", [-1, 3.5, np.inf, np.nan, True, torch.zeros(2), torch.tensor(0.5), np.array([1.0, 2.0]), Fraction(1, 2)]
)
def test_what_is_no_count_is_refused(value: Any) -> None:
    with pytest.raises(RecordError, match=r"step = .*: expected the number of steps"):
        count(value, "step", 0, "the number of steps")


def test_checkpoints_come_every_epoch_or_as_told() -> None:
    assert (checked_every(None, 7), checked_every(np.int64(3), 7), checked_every(0, None)) == (7, 3, 0)
    with pytest.raises(RecordError, match=r"every = -1: expected a number of steps, or 0 to save with save\(\) alone"):
        checked_every(-1, 7)
    with pytest.raises(
        RecordError, match=r"expected steps_per_epoch, the optimizer's steps an epoch .*, or every, the"
    ):
        checked_every(None, None)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.array([2.0]), Fraction(2)])
def test_a_loss_that_is_a_number(value: Any) -> None:
    found = checked_loss(value)
    assert found == 2.0 and type(found) is float


def test_a_loss_that_is_a_tensor_is_kept_as_it_was() -> None:
    loss = torch.tensor([2.0], requires_grad=True)
    found = checked_loss(loss)
    loss.detach().zero_()
    assert isinstance(found, torch.Tensor) and found.tolist() == [2.0] and not found.requires_grad
    assert checked_loss(None) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"loss": 1.0}, r"expects the loss of the batch, a number or a tensor with one; found dict\. Give the mean"),
        ("1.0", "found str"),
        ([1.0], "found list"),
        (torch.zeros(5), r"expects the loss of the batch, one number; found a tensor of shape \(5,\)\. Give the mean"),
        (np.zeros((2, 1)), r"found a tensor of shape \(2, 1\)"),
    ],
)
def test_what_is_no_loss_is_refused(value: object, expected: str) -> None:
    with pytest.raises(RecordError, match=expected):
        checked_loss(value)


def test_tensors_are_moved_together_and_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    stacked: list[int] = []
    stack = torch.stack

    def counted(tensors: list[torch.Tensor]) -> torch.Tensor:
        stacked.append(len(tensors))
        return stack(tensors)

    monkeypatch.setattr(torch, "stack", counted)
    values: list[Number] = [
        torch.tensor(0.1),
        0.25,
        torch.tensor([3.0]),
        4,
        torch.tensor(0.5, dtype=torch.float64),
        torch.tensor(7),
    ]
    assert floats(values) == [torch.tensor(0.1).item(), 0.25, 3.0, 4.0, 0.5, 7.0]
    assert sorted(stacked) == [1, 1, 2]  # of float64, of int64, of float32
    assert floats([]) == []
