"""Parameter groups of an optimizer: found again by name or by shape, or refused; never guessed."""

import pytest
import torch
from torch import nn

from indexer.checkpoints.groups import (
    OwnParameters,
    check_count,
    group_names,
    names_are_kept,
    names_are_known,
    parameter_groups,
)
from indexer.checkpoints.run import ParameterGroup
from indexer.errors import CheckpointError

SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "1.weight": (4, 4), "1.bias": (4,), "2.weight": (2, 4), "2.bias": (2,)}
NAMES = list(SHAPES)


def group(*names: str) -> ParameterGroup:
    """A group as a momentum optimizer saves it: shapes without names."""
    return ParameterGroup(shapes=tuple(SHAPES[name] for name in names))


def found(*groups: ParameterGroup) -> list[tuple[str, ...]]:
    return group_names(groups, OwnParameters(SHAPES, NAMES), "the optimizer")


def test_names_that_are_kept_decide() -> None:
    groups = [ParameterGroup(names=("2.weight", "0.bias")), ParameterGroup(names=("0.weight",))]
    assert found(*groups) == [("2.weight", "0.bias"), ("0.weight",)]


def test_names_are_those_of_the_task_s_model() -> None:
    own = OwnParameters(SHAPES, NAMES, {f"net.{name}": name for name in NAMES})
    groups = [ParameterGroup(names=("net.0.weight", "criterion.scale")), ParameterGroup(names=("net.2.bias",))]
    assert group_names(groups, own, "x") == [("0.weight", "criterion.scale"), ("2.bias",)]


def test_names_that_the_model_has_not_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"the optimizer names a parameter '9\.weight', which the task's model"):
        found(ParameterGroup(names=("9.weight",)))


@pytest.mark.parametrize(
    "split",
    [
        [("2.weight", "2.bias"), ("0.weight", "0.bias", "1.weight", "1.bias")],  # the head first
        [("0.weight", "1.weight", "2.weight"), ("0.bias", "1.bias", "2.bias")],  # those with decay, those without
        [("0.weight",), ("1.weight", "2.bias"), ("0.bias", "1.bias", "2.weight")],
        [tuple(NAMES)],
    ],
)
def test_shapes_tell_the_groups_apart(split: list[tuple[str, ...]]) -> None:
    assert found(*(group(*names) for names in split)) == split


def test_one_group_needs_no_shapes() -> None:
    assert found(ParameterGroup(shapes=(None,) * 6)) == [tuple(NAMES)]


def test_frozen_parameters_may_be_left_out_of_the_groups() -> None:
    trainable = NAMES[2:]
    groups = [group("1.weight", "1.bias"), group("2.weight", "2.bias")]
    assert group_names(groups, OwnParameters(SHAPES, trainable), "x") == [
        ("1.weight", "1.bias"),
        ("2.weight", "2.bias"),
    ]


@pytest.mark.parametrize(
    "groups",
    [
        [group("0.bias", "0.weight", *NAMES[2:])],  # another order than the model's
        [group("0.bias"), group("1.bias"), group("0.weight", "1.weight", "2.weight", "2.bias")],  # which bias is which?
        [ParameterGroup(shapes=(None,) * 3), ParameterGroup(shapes=(None,) * 3)],  # plain SGD keeps nothing
        [group(*NAMES[:5])],  # too few
    ],
    ids=["order", "two ways", "no shapes", "count"],
)
def test_what_cannot_be_told_apart_is_refused(groups: list[ParameterGroup]) -> None:
    expected = r"the optimizer keeps \d parameters in \d groups without names, and they fit the model's 6 parameters "
    with pytest.raises(CheckpointError, match=expected + r"\(6 trainable\) in no single way, by order and shape"):
        found(*groups)


def test_fewer_parameters_than_the_gradient_has_are_refused() -> None:
    check_count([group(*NAMES)], 6, "x")
    check_count([group(*NAMES)], 2, "x")  # of a larger model
    check_count([], 6, "x")  # nothing is known
    with pytest.raises(CheckpointError, match=r"x stepped 2 parameters, and the gradient has 6; .*`--parameters`"):
        check_count([group("2.weight", "2.bias")], 6, "x")


def test_many_equal_layers_are_refused_before_the_ways_outgrow_memory() -> None:
    shapes = {str(i): (8, 8) for i in range(200)}
    groups = [ParameterGroup(shapes=((8, 8),) * 20) for _ in range(10)]
    with pytest.raises(CheckpointError, match="in no single way"):
        group_names(groups, OwnParameters(shapes, list(shapes)), "x")


@pytest.mark.parametrize(
    "make",
    [
        lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
        lambda groups: torch.optim.AdamW(groups, lr=0.1),
        lambda groups: torch.optim.Adagrad(groups, lr=0.1),
    ],
    ids=["momentum", "adamw", "adagrad"],
)
def test_real_optimizers_keep_shapes(make: object) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    assert callable(make)
    optimizer = make([{"params": list(module[2].parameters())}, {"params": list(module[:2].parameters())}])
    module(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    groups = parameter_groups(optimizer.state_dict())
    assert found(*groups) == [("2.weight", "2.bias"), ("0.weight", "0.bias", "1.weight", "1.bias")]


def test_names_are_kept_by_all_groups_or_by_none() -> None:
    assert names_are_kept([ParameterGroup(("a",), (None,))])
    assert not names_are_kept([ParameterGroup(("a",)), group("2.bias")])
    assert not names_are_kept([])


def test_names_are_known_where_some_are_the_model_s() -> None:
    own = OwnParameters(SHAPES, NAMES, {"net.0.bias": "0.bias"})
    assert names_are_known([ParameterGroup(names=("net.0.bias", "other"))], own)
    assert not names_are_known([ParameterGroup(names=("weight", "bias"))], own)  # named within a part of the model


def test_names_come_from_the_state_where_it_keeps_them() -> None:
    module = nn.Linear(3, 4)
    [kept] = parameter_groups(torch.optim.SGD(module.named_parameters(), lr=0.1).state_dict())
    assert kept == ParameterGroup(("weight", "bias"), (None, None))
    assert kept.size == 2
