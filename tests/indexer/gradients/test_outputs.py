"""Probe outputs recognise a task, and tell another one apart."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.outputs import FIXED_ROWS, TOLERANCE, difference, fixed_rows, probe_outputs
from indexer.gradients.probe import probe
from tests.reference import in_float64, relative_error
from tests.tiny import cross_entropy

SINGLE = 1e-5  # float32 against float64: one small layer rounds at 1e-7
STORED = {"outputs": torch.tensor([[1.0, -4.0]]), "loss": torch.tensor([0.5])}


@settings(max_examples=50, deadline=None, derandomize=True)
@given(rows=st.integers(1, 5000))
def test_fixed_rows_are_distinct_and_within_the_data(rows: int) -> None:
    found = fixed_rows(rows)
    assert len(found) == min(rows, FIXED_ROWS)
    assert found == sorted(set(found))
    assert found[0] == 0 and found[-1] < rows


def test_fewer_rows_than_fixed_are_all_taken() -> None:
    assert fixed_rows(3) == [0, 1, 2]


def test_outputs_and_losses_at_every_checkpoint() -> None:
    modules = [nn.Linear(6, 3) for _ in range(3)]
    states = [{name: tensor.detach().clone() for name, tensor in m.named_parameters()} for m in modules]
    batch = torch.randn(5, 6), torch.arange(5) % 3
    layout = probe(nn.Linear(6, 3), cross_entropy, batch)
    found = probe_outputs(
        ModelAtCheckpoints(nn.Linear(6, 3), states, cross_entropy, layout, dtype=torch.float32), batch
    )
    outputs = torch.stack([in_float64(module)(batch[0].double()).detach() for module in modules])
    assert relative_error(found["outputs"], outputs) < SINGLE
    assert relative_error(found["loss"], torch.stack([cross_entropy(o, batch[1]) for o in outputs])) < SINGLE


def test_equal_outputs_differ_in_nothing() -> None:
    assert difference(STORED, STORED) is None
    assert difference({**STORED, "more": torch.ones(1)}, STORED) is None


@pytest.mark.parametrize(("share", "differs"), [(0.9, False), (1.1, True)])
def test_the_tolerance_is_relative_to_the_largest_value(share: float, differs: bool) -> None:
    found = {**STORED, "outputs": STORED["outputs"] + share * TOLERANCE * 4.0}
    assert (difference(found, STORED) is not None) is differs


def test_what_differs_is_named() -> None:
    found = {**STORED, "outputs": torch.tensor([[1.0, -3.75]])}
    assert difference(found, STORED) == "outputs of the probe examples differ by up to 0.25"
    found = {**STORED, "outputs": torch.ones(1, 3)}
    assert difference(found, STORED) == "outputs of shape (1, 2) became (1, 3)"
    assert difference({"outputs": STORED["outputs"]}, STORED) == "loss of shape (1,) became None"


def test_nan_is_a_difference() -> None:
    assert difference({**STORED, "loss": torch.tensor([float("nan")])}, STORED) is not None
