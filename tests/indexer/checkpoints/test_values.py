"""Plain values out of other people's files."""

from typing import Any

import pytest
import torch

from indexer.checkpoints.values import at, count, measured, number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((0.5, 0.5), (2, 2.0), (-1e-3, -1e-3), (torch.tensor(0.5), 0.5), (torch.tensor([3]), 3.0)),
        *((None, None), (True, None), ("0.5", None), ([0.5], None), (float("nan"), None), (float("-inf"), None)),
        *((10**400, None), (1j, None), (torch.tensor(1j), None), (torch.ones(2), None), (torch.tensor(True), None)),
    ],
)
def test_number(value: Any, expected: float | None) -> None:
    assert number(value) == expected


def test_what_was_measured_may_be_infinite() -> None:
    assert measured(float("-inf")) == float("-inf")
    assert measured(0.5) == 0.5 and measured(float("nan")) is None and measured("inf") is None


@pytest.mark.parametrize("value", [-1, 0.5, 10_000_001, "3", None, True, float("inf")])
def test_count_refuses(value: Any) -> None:
    assert count(value) is None


def test_counts_and_nested_values_are_found() -> None:
    assert (count(0), count(7.0), count(10_000_000), count(torch.tensor(3.0))) == (0, 7, 10_000_000, 3)
    assert at({"a": {"b": 1}}, "a", "b") == 1
    assert at([1], "a") is at({"a": None}, "a", "b") is at({}, "a") is None
