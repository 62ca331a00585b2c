"""TracInCP where parameters have rates of their own: one step of SGD with parameter groups is the truth."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.probe import probe
from indexer.methods.tracin import TracIn
from indexer.methods.tracin_kind import TracInKind
from tests.reference import in_float64, loop_gradients_by_name, relative_error
from tests.tiny import cross_entropy

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
IDENTITY = {"name": "identity"}
ETAS = [
    {"0.weight": 0.1, "0.bias": 0.1, "2.weight": 0.7, "2.bias": 0.7},  # body and head
    {"0.weight": 0.2, "0.bias": 0.05, "2.weight": 0.3, "2.bias": 0.3},  # and a weight apart from its bias
]

Batch = tuple[Tensor, Tensor]


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


@pytest.fixture
def states() -> list[dict[str, Tensor]]:
    return [dict(network().state_dict()) for _ in ETAS]


@pytest.fixture
def batches() -> tuple[Batch, Batch]:
    return (torch.randn(12, 6), torch.arange(12) % 3), (torch.randn(4, 6), torch.arange(4) % 3)


def method_of(
    states: Sequence[Mapping[str, Tensor]], etas: Sequence[Mapping[str, float]], projection: dict[str, Any]
) -> TracIn:
    layout = probe(network(), cross_entropy, (torch.randn(4, 6), torch.arange(4) % 3))
    model = ModelAtCheckpoints(network(), states, cross_entropy, layout, dtype=torch.float64)
    return TracInKind().open(model, etas, {"projection": projection}, {})


def expected(states: Sequence[Mapping[str, Tensor]], queries: Batch, train: Batch) -> Tensor:
    """[c, q, n]: the sum over parameters of their eta <gradient, gradient>, by a loop of backward()."""
    parts = []
    for state, etas in zip(states, ETAS, strict=True):
        module = in_float64(network(), state)
        asked, trained = (loop_gradients_by_name(module, cross_entropy, *batch) for batch in (queries, train))
        products = [eta * asked[name].flatten(1) @ trained[name].flatten(1).T for name, eta in etas.items()]
        parts.append(torch.stack(products).sum(0))
    return torch.stack(parts)


def test_scores_and_parts_weigh_every_parameter_by_its_own_rate(
    states: list[dict[str, Tensor]], batches: tuple[Batch, Batch]
) -> None:
    train, queries = batches
    method = method_of(states, ETAS, IDENTITY)
    asked, rows = method.query_vectors(queries)[0], method.train_rows(train).vectors
    parts = torch.stack([asked[:, part.start : part.stop] @ rows[:, part.start : part.stop].T for part in method.parts])
    assert relative_error(parts, expected(states, queries, train)) < DOUBLE


def test_exact_products_and_norms_do_too(states: list[dict[str, Tensor]], batches: tuple[Batch, Batch]) -> None:
    train, queries = batches
    method = method_of(states, ETAS, {"name": "rank1", "numbers": 64})
    [(products, norms)] = method.exact_parts(queries, [train])
    assert relative_error(products.transpose(1, 2), expected(states, queries, train)) < DOUBLE
    own = torch.stack([part.diagonal() for part in expected(states, train, train)], dim=1)
    assert relative_error(norms, own) < DOUBLE
    found = method.train_rows(train).self_influence
    assert found is not None and relative_error(found, own) < DOUBLE


@pytest.mark.parametrize("projection", [{"name": "gaussian", "numbers": 6000}, {"name": "rank1", "numbers": 6000}])
def test_projections_keep_the_rates(
    states: list[dict[str, Tensor]], batches: tuple[Batch, Batch], projection: dict[str, Any]
) -> None:
    """6,000 numbers for 53: the error of a sketch of this width is about 1 in sqrt(6000), 2%; without rates, 70%."""
    train, queries = batches
    method = method_of(states, ETAS, projection)
    found = method.query_vectors(queries)[0] @ method.train_rows(train).vectors.T
    assert relative_error(found, expected(states, queries, train).sum(0)) < 0.08


def test_one_step_of_sgd_with_groups_lowers_the_loss_by_the_score(
    states: list[dict[str, Tensor]], batches: tuple[Batch, Batch]
) -> None:
    (inputs, targets), queries = batches
    scale = 1e-4  # first order: the error is of the square of the step
    etas = {name: scale * eta for name, eta in ETAS[1].items()}
    method = method_of(states[1:], [etas], IDENTITY)
    scores = method.query_vectors(queries)[0] @ method.train_rows((inputs, targets)).vectors.T
    for row in range(4):
        module = in_float64(network(), states[1])
        groups = [{"params": [parameter], "lr": etas[name]} for name, parameter in module.named_parameters()]
        optimizer = torch.optim.SGD(groups)
        before = cross_entropy(module(queries[0].double()), queries[1]).detach()
        torch.autograd.backward(cross_entropy(module(inputs[row : row + 1].double()), targets[row : row + 1]).sum())
        optimizer.step()
        lowered = before - cross_entropy(module(queries[0].double()), queries[1]).detach()
        assert relative_error(lowered, scores[:, row]) < 1e-3
