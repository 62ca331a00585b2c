"""What can be traced is, and gives the numbers of the loop; what reads values in Python is not, and gives them too."""

import pytest
import torch

from tests.reference import relative_error
from tests.tiny import cross_entropy
from tests.traceable import (
    NO_TENSORS,
    READ_VALUES,
    SAFE,
    Around,
    at_two_states,
    by_loop,
    by_target,
    concatenated,
    linear,
    numbers,
)

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
PERFORMANCE = pytest.mark.filterwarnings("ignore:.*not yet implemented the batching rule")


@PERFORMANCE
@pytest.mark.parametrize("name", SAFE)
def test_a_graph_gives_what_the_loop_gives_for_examples_that_it_was_not_traced_on(name: str) -> None:
    make, loss, examples = SAFE[name]
    batch = examples()
    model, modules = at_two_states(make, loss, batch)
    inputs, targets = batch
    turned = -inputs if inputs.is_floating_point() else inputs.flip(1)
    for x, y in zip(torch.cat([inputs, turned]), torch.cat([targets, targets]), strict=True):
        found, _ = model.at_all((x[None], y[None]), concatenated, NO_TENSORS)
        assert model.untraced is None
        assert relative_error(found, by_loop(model, modules, (x[None], y[None]))) < DOUBLE


@pytest.mark.parametrize("name", READ_VALUES)
def test_a_model_that_reads_values_runs_as_it_is_and_says_why(name: str) -> None:
    body, refused = READ_VALUES[name]
    model, modules = at_two_states(lambda: Around(body), cross_entropy, numbers())
    inputs, targets = numbers(1)
    for x in (inputs, -inputs, inputs * 2):
        found, _ = model.at_all((x, targets), concatenated, NO_TENSORS)
        assert model.untraced is not None and refused in model.untraced
        assert relative_error(found, by_loop(model, modules, (x, targets))) < DOUBLE


def test_a_loss_that_reads_its_target_runs_as_it_is() -> None:
    inputs, _ = numbers()
    model, modules = at_two_states(linear, by_target, (inputs, torch.tensor([1, 2, 1, 2])))
    for target in (1, 0, 2):
        example = inputs[:1], torch.tensor([target])
        found, _ = model.at_all(example, concatenated, NO_TENSORS)
        assert model.untraced is not None and "DataDependentOutput" in model.untraced
        assert relative_error(found, by_loop(model, modules, example)) < DOUBLE
