"""Where a model's calls hold their examples, and which rows of a parameter they use, found by looking at a few."""

import pytest
import torch
from torch import Tensor, nn

from indexer.gradients.names import Piece
from indexer.gradients.place import Batched, Shared
from tests.indexer.gradients.test_trace import traced


class SequenceFirst(nn.Module):
    """Hands [position, batch, …] or [position * batch, …] to its first layer."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(2, 4), nn.Linear(12, 3)
        self.flat = flat

    def forward(self, x: Tensor) -> Tensor:
        positions = x.reshape(-1, 3, 2).transpose(0, 1)
        positions = positions.reshape(-1, 2) if self.flat else positions
        h = torch.tanh(self.layer(positions))
        h = h.reshape(3, -1, 4).transpose(0, 1).flatten(1)
        outputs: Tensor = self.head(h)
        return outputs


@pytest.mark.parametrize("batch", [3, 5])
@pytest.mark.parametrize(("flat", "place"), [(False, Batched(axis=1)), (True, Batched(0, before=3))])
def test_a_layer_that_holds_its_examples_elsewhere_has_its_place(flat: bool, place: Batched, batch: int) -> None:
    layout = traced(SequenceFirst(flat), batch)  # three positions may look like a batch of three
    assert [site.place for site in layout.sites] == [place, Batched()]


def test_a_table_that_is_looked_up_once_for_all_examples_has_a_rule() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.mixed, self.head = nn.Embedding(3, 2), nn.Linear(2, 2), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            positions = self.mixed(torch.tanh(self.table(torch.arange(3))))
            outputs: Tensor = self.head((torch.tanh(x.reshape(-1, 3, 2)) * positions).flatten(1))
            return outputs

    layout = traced(Positions())
    assert {block.path for block in layout.blocks} == {"factors"}
    assert [site.place for site in layout.sites] == [Shared(new_axis=True), Batched(), Batched()]


def test_windows_of_an_example_are_added_up() -> None:
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv1d(1, 4, 2), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = torch.tanh(self.layers(x.reshape(-1, 1, 2)))
            return outputs.reshape(-1, 3, 3).sum(1)

    layout = traced(Windows())
    assert {block.path for block in layout.blocks} == {"factors"}
    assert {site.place for site in layout.sites} == {Batched(0, after=3)}


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_layer_is_all_factors(batch_first: bool) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.TransformerEncoderLayer(2, 2, 4, batch_first=batch_first)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x.reshape(-1, 3, 2) if batch_first else x.reshape(-1, 3, 2).transpose(0, 1)
            h = self.encoder(x)
            outputs: Tensor = self.head((h if batch_first else h.transpose(0, 1)).flatten(1))
            return outputs

    layout = traced(Encoder())
    assert {block.path for block in layout.blocks} == {"factors"}
    packed = next(site for site in layout.sites if site.weight == "encoder.self_attn.in_proj_weight")
    assert packed.place == Batched(axis=1)


def test_rows_of_a_packed_projection_are_found() -> None:
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(2, 2, batch_first=True), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x.reshape(-1, 3, 2)
            memory = x[:, 1:]
            outputs: Tensor = self.head(self.attention(x[:, :1], memory, memory)[0][:, 0])
            return outputs

    layout = traced(Cross())
    block = next(block for block in layout.blocks if block.name == "attention.in_proj_weight")
    assert (block.path, block.parameters) == ("factors", ("attention.in_proj_weight", "attention.in_proj_bias"))
    pieces = [site.pieces[0] for site in layout.sites if site.weight == block.name]
    assert pieces == [Piece(block.name, (0, 2)), Piece(block.name, (2, 6))]
