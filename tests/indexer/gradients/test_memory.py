"""Bytes of a pass, counted, against what the layers of small models are known to keep."""

import torch
from torch import Tensor, nn

from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.block import DenseGradient, FactorGradient
from indexer.gradients.memory import GENERAL_COPIES, bytes_per_example, held_bytes
from indexer.gradients.probe import probe
from indexer.gradients.uses import LinearUse
from tests.tiny import cross_entropy


def counted(module: nn.Module, b: int = 4, dtype: torch.dtype = torch.float32) -> int:
    batch = (torch.randn(b, 6), torch.arange(b) % 3)
    state = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}
    layout = probe(module, cross_entropy, (torch.randn(4, 6), torch.arange(4) % 3))
    return bytes_per_example(ModelAtCheckpoints(module, [state], cross_entropy, layout, dtype=dtype), batch)


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def test_outputs_deltas_and_what_autograd_saves_are_counted() -> None:
    found = counted(network(1000))
    # two numbers for each output of a layer, one for each output of the activation, inputs and a few of the loss
    assert 4 * 3000 <= found <= 4 * 3000 + 200


def test_it_grows_with_the_numbers_and_not_with_the_batch_or_the_weights() -> None:
    assert abs(counted(network(1000), b=4) / counted(network(1000), b=64) - 1) < 0.01
    assert counted(network(1000), dtype=torch.float64) > 1.9 * counted(network(1000))


def test_gradients_of_the_general_paths_are_counted() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 500))
            self.head = nn.Linear(500, 3)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.head(x @ self.weight)
            return outputs

    assert counted(Product()) >= 4 * GENERAL_COPIES * 6 * 500


def test_held_gradients_are_counted_as_values_or_as_factors() -> None:
    delta, x = torch.zeros(2, 5), torch.zeros(2, 7, dtype=torch.float64)
    factors = FactorGradient((LinearUse(delta, x, True),))
    assert held_bytes([{"a": factors, "b": DenseGradient(torch.zeros(2, 3, 4))}]) == 4 * 10 + 8 * 14 + 4 * 24
