"""The optimizer of a run: as it is described, and what a reader of scores is told of it."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from indexer.checkpoints.optimizer import Optimizer, describe_optimizer, read_optimizer
from indexer.errors import CheckpointError


def test_an_optimizer_is_described_and_read_back() -> None:
    weights: list[Tensor] = [nn.Parameter(torch.zeros(1))]
    described = describe_optimizer(torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True))
    assert described == {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0}
    assert read_optimizer(described, "listing") == Optimizer("sgd", {k: v for k, v in described.items() if k != "name"})
    assert describe_optimizer(torch.optim.AdamW(weights, lr=0.1))["betas"] == (0.9, 0.999)
    assert read_optimizer({"name": "AdamW"}, "listing") == Optimizer("adamw")
    assert read_optimizer(None, "listing") is None


def test_numbers_of_numpy_and_torch_are_described_as_plain_ones() -> None:
    weights: list[Tensor] = [nn.Parameter(torch.zeros(1))]
    described = describe_optimizer(torch.optim.SGD(weights, lr=0.1, momentum=np.float64(0.9)))
    kinds = {"name": str, "momentum": float, "nesterov": bool, "weight_decay": int}
    assert {key: type(value) for key, value in described.items()} == kinds
    optimizer = torch.optim.AdamW(weights, lr=0.1, betas=(torch.tensor(0.5), torch.tensor(0.25)))
    assert describe_optimizer(optimizer)["betas"] == (0.5, 0.25)
    optimizer.param_groups[0]["betas"] = [np.float32(0.5), 0.25]
    assert [type(beta) for beta in describe_optimizer(optimizer)["betas"]] == [float, float]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("adam", "listing: expected optimizer .*, found 'adam'"),
        ({"momentum": 0.9}, "listing: expected optimizer"),
        ({"name": "sgd", "momentum": 1.0}, "listing: optimizer has momentum 1.0; expected a number from 0 to below 1"),
        ({"name": "sgd", "momentum": "0.9"}, "listing: optimizer has momentum '0.9'"),
    ],
)
def test_a_description_of_another_form_is_refused(entry: Any, expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        read_optimizer(entry, "listing")


@pytest.mark.parametrize(
    ("optimizer", "preconditioned", "expected"),
    [
        (Optimizer("sgd", {"momentum": 0, "weight_decay": 0.1}), False, None),
        (Optimizer("sgd"), False, None),
        (
            Optimizer("sgd", {"momentum": 0.9}),
            False,
            "trained with momentum 0.9: .* about 10 times as far as",
        ),
        (
            Optimizer("adamw"),
            False,
            "trained with adamw, which scales every weight's step by itself; scores",
        ),
        (
            Optimizer("adam"),
            True,
            "trained with adam: gradients are scaled by its second moments; its",
        ),
    ],
)
def test_a_reader_is_told_what_scores_leave_out(
    optimizer: Optimizer, preconditioned: bool, expected: str | None
) -> None:
    found = optimizer.caveat(preconditioned)
    assert found is None if expected is None else re.match(expected, found or "")
