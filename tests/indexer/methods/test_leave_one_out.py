"""The sign, guarded by training again: without an example a loss ends higher by its score, to first order."""

import pytest
import torch
from torch import Tensor, nn

from indexer import Task
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.probe import probe
from indexer.methods.tracin import TracIn
from indexer.projection.identity import Identity
from indexer.task import read_rows
from tests.tiny import cross_entropy

ROWS, QUERIES, STEPS = 60, 10, 30
RATE = 0.02  # small steps: scores are a statement of first order
FIRST_ORDER = 0.2  # the rest is of second order: at half the rate half as large
State = dict[str, Tensor]


def model() -> nn.Module:
    """A linear classifier of 49 pooled pixels: convex, so that training again ends where it should."""
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 10)).double()


def trained(inputs: Tensor, targets: Tensor) -> tuple[nn.Module, list[State]]:
    """Full-batch gradient descent on the sum of losses over ROWS, and the state before every step."""
    module, states = model(), []
    for _ in range(STEPS):
        states.append({name: tensor.detach().clone() for name, tensor in module.named_parameters()})
        loss = cross_entropy(module(inputs), targets).sum() / ROWS
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter.sub_(RATE * gradient)
    return module, states


def test_without_its_top_examples_a_loss_ends_higher_by_their_scores(task: Task) -> None:
    assert task.test is not None
    inputs, targets = read_rows(task.train, range(ROWS))
    asked, asked_targets = read_rows(task.test, range(QUERIES))
    inputs, asked = inputs.double(), asked.double()
    module, states = trained(inputs, targets)
    layout = probe(model(), cross_entropy, (inputs[:4], targets[:4]))
    etas = (RATE / ROWS,) * STEPS
    tracin = TracIn(
        ModelAtCheckpoints(model(), states, cross_entropy, layout, dtype=torch.float64), etas, Identity(layout)
    )
    scores = tracin.query_vectors((asked, asked_targets))[0] @ tracin.train_rows((inputs, targets)).vectors.T
    before = cross_entropy(module(asked), asked_targets)
    for query in range(QUERIES):
        for row in (int(scores[query].argmax()), int(scores[query].argmin())):
            kept = torch.arange(ROWS) != row
            without, _ = trained(inputs[kept], targets[kept])
            after = cross_entropy(without(asked), asked_targets)
            change = (after[query] - before[query]).item()
            assert change == pytest.approx(scores[query, row].item(), rel=FIRST_ORDER)  # and so of the same sign
