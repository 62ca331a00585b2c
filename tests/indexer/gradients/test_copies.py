"""Which parameters may have a copy for every example, and that no unchecked kernel ever sees one."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from indexer.gradients.copies import copies_path
from indexer.gradients.layout import Block
from indexer.gradients.probe import probe
from tests.tiny import cross_entropy


class Broadcast(nn.Module):
    """A parameter that enters in one of several ways, before a linear layer."""

    def __init__(self, way: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.table, self.layer = nn.Parameter(torch.rand(shape) + 0.5), nn.Linear(6, 3)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(x.reshape(len(x), 2, 3))
        table = self.table
        ways = {
            "added": lambda: x + table,
            "scaled": lambda: x * table.exp(),
            "joined": lambda: torch.cat([x[:, 1:], table.expand(len(x), -1, -1)], 1),
            "multiplied": lambda: x @ table,
            "softmax": lambda: x + table.softmax(-1),
            "sorted": lambda: x + torch.sort(table).values,
        }
        outputs: Tensor = self.layer(ways[self.way]().flatten(1))
        return outputs


def found(module: nn.Module, name: str = "table") -> Block | None:
    """The block of a parameter on the path of copies, if it has one."""
    module, batch = module.double().eval(), (torch.randn(4, 6, dtype=torch.float64), torch.arange(4) % 3)
    state = {key: tensor.detach() for key, tensor in (*module.named_parameters(), *module.named_buffers())}
    parameter = state[name]
    rows = parameter.shape[0] if parameter.ndim else 1
    block = Block(name, (name,), (rows, parameter.numel() // rows), "vmap", "no rule for what uses it")
    return copies_path(module, state, cross_entropy, batch, block)


@pytest.mark.parametrize(
    ("way", "shape", "copied"),
    [
        ("added", (2, 3), (1, 2, 3)),
        ("added", (1, 2, 3), (1, 2, 3)),
        ("added", (3,), (1, 1, 3)),
        ("scaled", (2, 1), (1, 2, 1)),
        ("scaled", (), (1, 1, 1)),
        ("joined", (1, 1, 3), (1, 1, 3)),
    ],
)
def test_what_broadcasts_is_copied(way: str, shape: tuple[int, ...], copied: tuple[int, ...]) -> None:
    block = found(Broadcast(way, shape))
    assert block is not None
    assert (block.path, block.copied, block.note) == ("copies", copied, "one copy for every example")


@pytest.mark.parametrize(("way", "shape"), [("sorted", (2, 3)), ("softmax", (2, 3))])
def test_what_may_not_check_its_shapes_is_left_alone(way: str, shape: tuple[int, ...]) -> None:
    """Both would be right: what is not known to check is not tried."""
    assert found(Broadcast(way, shape)) is None


def test_a_model_that_asserts_the_shape_of_its_table_is_left_alone() -> None:
    class Careful(Broadcast):
        def forward(self, x: Tensor) -> Tensor:
            assert self.table.shape == (2, 3), "another table"
            return super().forward(x)

    assert found(Careful("added", (2, 3))) is None


def test_a_table_that_moves_nothing_is_left_alone() -> None:
    module = Broadcast("added", (2, 3))
    nn.init.zeros_(module.layer.weight)
    assert found(module) is None


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_are_never_tried(kind: type[nn.Module]) -> None:
    """The fused LSTM of float32 reads past a bias of another shape, though that of float64 is right."""

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.head = kind(3, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.head(self.recurrent(x.reshape(-1, 2, 3))[0][:, -1])
            return outputs

    assert found(Recurrent(), "recurrent.bias_ih_l0") is None


@pytest.mark.filterwarnings("ignore:.*not yet implemented the batching rule")
def test_the_kernel_of_weight_norm_never_sees_a_copy() -> None:
    """It does not check shapes: with a copy it wrote past its tensors and ended the process."""
    module = nn.Sequential(weight_norm(nn.Linear(6, 3)))
    layout = probe(module, cross_entropy, (torch.randn(4, 6), torch.arange(4) % 3))
    paths = {block.name: block.path for block in layout.blocks}
    assert paths["0.parametrizations.weight.original0"] == paths["0.parametrizations.weight.original1"] == "vmap"
