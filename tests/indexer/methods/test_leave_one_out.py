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
LARGE, SMALL = 0.2, 0.02  # learning rates: at the large one the statement of first order holds in sign only
FIRST_ORDER = 0.2  # relative, at the small rate; what remains is of second order, so half the rate must halve it
HALVED = 0.6  # half, and a little of third order
State = dict[str, Tensor]


def model() -> nn.Module:
    """A linear classifier of 49 pooled pixels: convex, so that training again ends where it should."""
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(49, 10)).double()


def trained(inputs: Tensor, targets: Tensor, rate: float) -> tuple[nn.Module, list[State]]:
    """Full-batch gradient descent on the sum of losses over ROWS, and the state before every step."""
    module, states = model(), []
    for _ in range(STEPS):
        states.append({name: tensor.detach().clone() for name, tensor in module.named_parameters()})
        loss = cross_entropy(module(inputs), targets).sum() / ROWS
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter.sub_(rate * gradient)
    return module, states


def scores_and_changes(task: Task, rate: float) -> Tensor:
    """[2 QUERIES, 2]: the score of each query's top proponent and opponent, and the change of loss without it."""
    assert task.test is not None
    inputs, targets = read_rows(task.train, range(ROWS))
    asked, asked_targets = read_rows(task.test, range(QUERIES))
    inputs, asked = inputs.double(), asked.double()
    module, states = trained(inputs, targets, rate)
    layout = probe(model(), cross_entropy, (inputs[:4], targets[:4]))
    at_steps = ModelAtCheckpoints(model(), states, cross_entropy, layout, dtype=torch.float64)
    tracin = TracIn(at_steps, [dict.fromkeys(at_steps.parameters, rate / ROWS)] * STEPS, Identity(layout))
    scores = tracin.query_vectors((asked, asked_targets))[0] @ tracin.train_rows((inputs, targets)).vectors.T
    before = cross_entropy(module(asked), asked_targets)
    found = []
    for query in range(QUERIES):
        for row in (int(scores[query].argmax()), int(scores[query].argmin())):
            kept = torch.arange(ROWS) != row
            without, _ = trained(inputs[kept], targets[kept], rate)
            change = cross_entropy(without(asked), asked_targets)[query] - before[query]
            found.append(torch.stack([scores[query, row], change.detach()]))
    return torch.stack(found)


@pytest.mark.parametrize("rate", [LARGE, SMALL])
def test_without_a_top_example_a_loss_moves_as_the_sign_of_its_score_says(task: Task, rate: float) -> None:
    scores, changes = scores_and_changes(task, rate).T
    assert (scores * changes > 0).all()


def test_at_small_rates_the_loss_moves_by_the_score_and_the_rest_is_of_second_order(task: Task) -> None:
    errors = []
    for rate in (SMALL, SMALL / 2):
        scores, changes = scores_and_changes(task, rate).T
        errors.append((changes / scores - 1).abs().max().item())
    assert errors[0] < FIRST_ORDER
    assert errors[1] < HALVED * errors[0]
