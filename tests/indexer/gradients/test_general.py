"""The general paths against the loop of ``backward()``: each example as if it were alone in its batch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from indexer.gradients.general import by_loop, by_vmap
from tests.reference import loop_gradients_by_name, relative_error
from tests.tiny import cross_entropy

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14

Way = Callable[..., dict[str, Tensor]]
EXAMPLES = torch.Generator().manual_seed(0)
INPUTS = torch.randn(5, 6, 3, generator=EXAMPLES, dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 2, 1, 0])


class Recurrent(nn.Module):
    """A GRU under a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 4, batch_first=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.fc(self.gru(x)[0][:, -1])
        return outputs


def normalised() -> nn.Module:
    """Norms with and without buffers, between linear layers."""
    return nn.Sequential(nn.LayerNorm(3), nn.Flatten(), nn.Linear(18, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}


@pytest.mark.parametrize("way", [by_vmap, by_loop])
def test_both_ways_equal_the_loop(way: Way) -> None:
    module = normalised().double().eval()
    expected = loop_gradients_by_name(module, cross_entropy, INPUTS, TARGETS)
    found = way(module, state_of(module), cross_entropy, (INPUTS, TARGETS), list(expected))
    assert list(found) == list(expected)
    for name, gradient in expected.items():
        assert relative_error(found[name], gradient) < DOUBLE


@pytest.mark.parametrize("way", [by_vmap, by_loop])
def test_only_the_named_parameters_are_differentiated(way: Way) -> None:
    module = normalised().double().eval()
    found = way(module, state_of(module), cross_entropy, (INPUTS, TARGETS), ["0.bias"])
    assert set(found) == {"0.bias"}
    expected = loop_gradients_by_name(module, cross_entropy, INPUTS, TARGETS)["0.bias"]
    assert relative_error(found["0.bias"], expected) < DOUBLE


@pytest.mark.parametrize("way", [by_vmap, by_loop])
def test_a_parameter_that_the_loss_does_not_use_has_gradient_zero(way: Way) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(18, 3)).double()
    module.register_parameter("extra", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    found = way(module, state_of(module), cross_entropy, (INPUTS, TARGETS), ["extra", "1.weight"])
    assert torch.equal(found["extra"], torch.zeros(5, 2, dtype=torch.float64))


def test_the_loop_takes_what_vmap_refuses() -> None:
    module = Recurrent().double().eval()
    expected = loop_gradients_by_name(module, cross_entropy, INPUTS, TARGETS)
    arguments = (module, state_of(module), cross_entropy, (INPUTS, TARGETS), list(expected))
    with pytest.raises(RuntimeError, match="shape"):
        by_vmap(*arguments)
    found = by_loop(*arguments)
    for name, gradient in expected.items():
        assert relative_error(found[name], gradient) < DOUBLE


@pytest.mark.parametrize("way", [by_vmap, by_loop])
def test_no_gradient_is_left_on_the_module(way: Way) -> None:
    module = normalised().double().eval()
    way(module, state_of(module), cross_entropy, (INPUTS, TARGETS), ["2.weight"])
    assert all(parameter.grad is None for parameter in module.parameters())


def test_the_loop_works_where_gradients_are_switched_off() -> None:
    module = normalised().double().eval()
    with torch.no_grad():
        found = by_loop(module, state_of(module), cross_entropy, (INPUTS, TARGETS), ["2.weight"])
    expected = loop_gradients_by_name(module, cross_entropy, INPUTS, TARGETS)["2.weight"]
    assert relative_error(found["2.weight"], expected) < DOUBLE
