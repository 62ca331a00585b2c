"""Which path every parameter takes, the reason in its note, and that the gradient is right on each of them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.errors import ProbeError
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.gradients.layout import Block, Layout
from indexer.gradients.trace import trace
from tests.reference import in_blocks, loop_gradients_by_name, relative_error
from tests.tiny import cross_entropy

COPIED = "one copy for every example"
DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14


class Product(nn.Module):
    """``x @ weight``, which no rule sees, before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(x @ self.weight)
        return outputs


class AlsoElsewhere(nn.Module):
    """A linear layer whose weight also enters the outputs directly."""

    def __init__(self, transposed: bool = False) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)
        self.transposed = transposed

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.layer(x))
        h = F.linear(h, self.layer.weight.T) if self.transposed else h * self.layer.weight.square().sum()
        outputs: Tensor = self.head(h)
        return outputs


class Recurrent(nn.Module):
    """A GRU, which vmap refuses, under a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.gru(x.reshape(-1, 3, 2))[0][:, -1])
        return outputs


class BySize(nn.Module):
    """Calls its layer once more in batches of five and more."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) >= 5:
            self.layer(x)
        outputs: Tensor = self.layer(x)
        return outputs


class SharedBias(nn.Module):
    """One bias in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 3), nn.Linear(3, 3)
        self.second.bias = self.first.bias

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.second(torch.tanh(self.first(x)))
        return outputs


class StopGradient(nn.Module):
    """Calls its layer once more where no gradient flows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.layer(x)
        outputs: Tensor = self.layer(x) * target
        return outputs


def images(*layers: nn.Module) -> nn.Module:
    """[b, 6] -> two channels of 4 x 4 -> the layers -> [b, 3]."""
    return nn.Sequential(nn.Linear(6, 32), nn.Unflatten(1, (2, 4, 4)), *layers, nn.Flatten(), nn.LazyLinear(3))


def traced(module: nn.Module, batch: int = 5) -> Layout:
    """The layout of a module, after its gradients were compared with the loop."""
    inputs, targets = torch.randn(batch, 6, dtype=torch.float64), torch.arange(batch) % 3
    module = module.double().eval()
    module(inputs)  # lazy layers take their shape
    layout = trace(module, cross_entropy, (inputs, targets))
    state = {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    model = ModelAtCheckpoints(module, [state], cross_entropy, layout, dtype=torch.float64)
    found = model.at(0, (inputs, targets)).kept
    expected = in_blocks(layout, loop_gradients_by_name(module, cross_entropy, inputs, targets))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert relative_error(found[name].dense(), gradient) < DOUBLE
    return layout


def notes(layout: Layout) -> dict[str, tuple[str, str]]:
    """{block: (path, note)}."""
    return {block.name: (block.path, block.note) for block in layout.blocks}


def test_weights_hold_their_biases_in_the_order_of_the_parameters() -> None:
    layout = traced(images(nn.Conv2d(2, 4, 3)))
    assert layout.blocks == (
        Block("0.weight", ("0.weight", "0.bias"), (32, 7), "factors", "linear"),
        Block("2.weight", ("2.weight", "2.bias"), (4, 19), "factors", "conv2d"),
        Block("4.weight", ("4.weight", "4.bias"), (3, 17), "factors", "linear"),
    )
    assert [site.function for site in layout.sites] == ["linear", "conv2d", "linear"]
    assert layout.size == 32 * 7 + 4 * 19 + 3 * 17


@pytest.mark.filterwarnings("ignore:.*not yet implemented the batching")
def test_a_layer_without_a_rule_goes_to_vmap_and_its_neighbours_keep_theirs() -> None:
    found = notes(traced(images(nn.PReLU(), nn.BatchNorm2d(2))))
    assert found["2.weight"] == ("vmap", "no rule for what uses it")
    assert found["0.weight"] == ("factors", "linear")
    assert found["3.weight"] == found["3.bias"] == ("factors", "batch_norm")


def test_a_weight_that_no_watched_function_sees_goes_to_vmap() -> None:
    assert notes(traced(Product())) == {
        "weight": ("vmap", "no rule for what uses it"),
        "head.weight": ("factors", "linear"),
    }


@pytest.mark.parametrize("transposed", [False, True])
def test_a_weight_that_is_also_used_elsewhere_goes_to_vmap(transposed: bool) -> None:
    found = notes(traced(AlsoElsewhere(transposed)))
    assert found["layer.weight"] == ("vmap", "also used outside the functions that have a rule")
    assert found["head.weight"] == ("factors", "linear")


def test_what_vmap_refuses_goes_to_the_loop_and_says_why() -> None:
    found = notes(traced(Recurrent()))
    path, note = found["gru.weight_hh_l0"]
    assert path == "loop"
    assert note.startswith("no rule for what uses it; vmap: ")
    assert found["head.weight"] == ("factors", "linear")


def test_calls_that_depend_on_the_size_of_the_batch_go_to_vmap() -> None:
    assert {note for _, note in notes(traced(BySize())).values()} == {"its calls depend on the batch"}


def test_a_bias_of_two_layers_is_a_block_of_its_own() -> None:
    blocks = {block.name: block for block in traced(SharedBias()).blocks}
    assert blocks["first.bias"] == Block("first.bias", ("first.bias",), (3, 1), "factors", "linear")
    assert blocks["first.weight"].parameters == ("first.weight",)


def test_a_call_without_gradient_contributes_nothing() -> None:
    assert notes(traced(StopGradient())) == {"layer.weight": ("factors", "linear")}


def test_a_scalar_parameter_is_a_block_of_one_number() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.5))
            self.layer = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.layer(x) * self.scale
            return outputs

    assert traced(Scaled()).blocks[0] == Block("scale", ("scale",), (1, 1), "copies", COPIED, copied=(1, 1))


@pytest.mark.parametrize(
    ("shape", "copied"), [((6,), (1, 6)), ((1, 6), (1, 6)), ((2, 1), (1, 2, 1)), ((1, 2, 3), (1, 2, 3))]
)
def test_a_table_that_is_added_by_broadcasting_is_copied_for_every_example(
    shape: tuple[int, ...], copied: tuple[int, ...]
) -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(shape))
            self.layer = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            wide = x if shape[-1] == 6 else x.reshape(-1, 2, 3)
            outputs: Tensor = self.layer((torch.tanh(wide) * self.table).flatten(1))
            return outputs

    block = traced(Table()).blocks[0]
    assert (block.path, block.copied) == ("copies", copied)


def test_a_choice_of_parameters_leaves_the_others_out_and_says_so() -> None:
    inputs, targets = torch.randn(4, 6, dtype=torch.float64), torch.arange(4) % 3
    module = images(nn.Conv2d(2, 4, 3)).double()
    module(inputs)
    layout = trace(module, cross_entropy, (inputs, targets), ["4.bias", "4.weight"])
    assert [block.parameters for block in layout.blocks] == [("4.weight", "4.bias")]
    assert layout.left_out == ("0.weight", "0.bias", "2.weight", "2.bias")


def test_a_model_without_trainable_parameters_is_refused() -> None:
    module = nn.Linear(6, 3).requires_grad_(False)
    with pytest.raises(ProbeError, match="the model has no trainable parameter; unfreeze those whose influence"):
        traced(module)


def test_an_unused_trainable_parameter_is_refused_by_name() -> None:
    module = nn.Linear(6, 3)
    module.register_parameter("spare", nn.Parameter(torch.ones(2)))
    with pytest.raises(
        ProbeError, match=r"the loss does not depend on the trainable parameter 'spare'; freeze what is"
    ):
        traced(module)
    module.register_parameter("more", nn.Parameter(torch.ones(2)))
    with pytest.raises(ProbeError, match=r"the trainable parameters 'spare', 'more'; .* \(--parameters '!pooler.\*'\)"):
        traced(module)


def test_a_gradient_that_is_not_finite_is_refused_by_name() -> None:
    class Root(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * 0).abs().sqrt()

    with pytest.raises(ProbeError, match="the gradient of 'weight' is NaN or infinite at a probe example; check the"):
        traced(Root(6, 3, bias=False))
