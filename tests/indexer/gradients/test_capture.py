"""Both captures against the loop of ``backward()``, for every way in which a model may use its layers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from indexer.errors import TaskError
from indexer.gradients.block import BlockGradient
from indexer.gradients.capture import Captured, State, eager, tapped, whole
from indexer.gradients.trace import trace
from tests.reference import in_blocks, loop_gradients_by_name, relative_error
from tests.tiny import cross_entropy, tiny_model

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
SINGLE = 1e-5  # float32: the same sums round at 1e-7 and lose a digit or two

Capture = Callable[..., Captured[BlockGradient]]
CAPTURES = pytest.mark.parametrize("capture", [eager, tapped])


class Tied(nn.Module):
    """One weight in two layers, each with its own bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.second(torch.tanh(self.first(x))))
        return outputs


class Twice(nn.Module):
    """One layer called twice, the second time on a sequence of two positions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        once = torch.tanh(self.layer(x))
        outputs: Tensor = self.head(self.layer(torch.stack([once, x], dim=1)).sum(1))
        return outputs


class Routed(nn.Module):
    """Sends its input through layers in an order that can be changed."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"first": nn.Linear(6, 6), "second": nn.Linear(6, 6), "last": nn.Linear(6, 3)})
        self.path = ["first", "second", "last"]

    def forward(self, x: Tensor) -> Tensor:
        for name in self.path:
            x = self.layers[name](x)
        return x


class Idle(nn.Module):
    """Calls a layer twice and throws one output away."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.layer(x + 1)
        outputs: Tensor = self.layer(x)
        return outputs


def frozen(module: nn.Module, *names: str) -> nn.Module:
    """The module with some parameters out of training."""
    for name in names:
        module.get_parameter(name).requires_grad_(False)
    return module


def mlp(bias: bool = True, inplace: bool = False) -> nn.Module:
    """[b, 6] -> [b, 3]."""
    return nn.Sequential(nn.Linear(6, 5, bias=bias), nn.ReLU(inplace), nn.Linear(5, 3, bias=bias))


def convolutional(inplace: bool = False) -> nn.Module:
    """[b, 6] as one channel of 12 x 12 -> [b, 3], with stride, padding, dilation, 'same' and no bias."""
    return nn.Sequential(
        nn.Linear(6, 144, bias=False),
        nn.Unflatten(1, (1, 12, 12)),
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.ReLU(inplace),
        nn.Conv2d(3, 4, (3, 2), dilation=(1, 2), bias=False),
        nn.LeakyReLU(0.1, inplace),
        nn.Conv2d(4, 2, 3, padding="same"),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": mlp,
    "no bias": lambda: mlp(bias=False),
    "in-place": lambda: mlp(inplace=True),
    "positions": lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Linear(2, 4), nn.Flatten(), nn.Linear(12, 3)),
    "convolutions": convolutional,
    "in-place convolutions": lambda: convolutional(inplace=True),
    "frozen weight": lambda: frozen(mlp(), "0.weight"),
    "frozen convolution weight": lambda: frozen(convolutional(), "2.weight"),
    "frozen bias": lambda: frozen(mlp(), "0.bias"),
    "frozen layer": lambda: frozen(mlp(), "0.weight", "0.bias"),
    "tied": Tied,
    "twice": Twice,
    "idle": Idle,
}
ALL_MODELS = pytest.mark.parametrize("name", MODELS)


def examples(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Seven inputs and targets."""
    return torch.randn(7, 6, dtype=dtype), torch.arange(7) % 3


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}


def captured_and_expected(
    capture: Capture, module: nn.Module, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Dense gradients by block, by a capture in a dtype and by the loop in float64."""
    inputs, targets = examples(torch.float32)
    layout = trace(module.double().eval(), cross_entropy, (inputs.double(), targets))
    expected = in_blocks(layout, loop_gradients_by_name(module.to(dtype), cross_entropy, inputs, targets))
    captured = capture(module, state_of(module), cross_entropy, (inputs.to(dtype), targets), layout, whole)
    assert {block.path for block in layout.blocks} == {"factors"}
    return {name: gradient.dense() for name, gradient in captured.kept.items()}, expected


@CAPTURES
@ALL_MODELS
def test_gradients_equal_the_loop(name: str, capture: Capture) -> None:
    found, expected = captured_and_expected(capture, MODELS[name](), torch.float64)
    assert found.keys() == expected.keys()
    for block, gradient in expected.items():
        assert relative_error(found[block], gradient) < DOUBLE


@CAPTURES
@ALL_MODELS
def test_float32_gradients_agree_to_float32_rounding(name: str, capture: Capture) -> None:
    found, expected = captured_and_expected(capture, MODELS[name](), torch.float32)
    for block, gradient in expected.items():
        assert found[block].dtype == torch.float32
        assert relative_error(found[block], gradient) < SINGLE


@ALL_MODELS
def test_tapped_runs_at_several_states_at_once(name: str) -> None:
    modules = [MODELS[name]().double().eval() for _ in range(3)]
    batch = examples(torch.float64)
    layout = trace(modules[0], cross_entropy, batch)
    stacked = {key: torch.stack([state_of(module)[key] for module in modules]) for key in state_of(modules[0])}

    def dense(state: State) -> dict[str, Tensor]:
        gradients = tapped(modules[0], state, cross_entropy, batch, layout, whole).kept
        return {block: gradient.dense() for block, gradient in gradients.items()}

    at_once = vmap(dense)(stacked)
    for i, module in enumerate(modules):
        expected = in_blocks(layout, loop_gradients_by_name(module, cross_entropy, *batch))
        for block, gradient in expected.items():
            assert relative_error(at_once[block][i], gradient) < DOUBLE


@CAPTURES
def test_real_digits_with_pooling(capture: Capture) -> None:
    module, inputs, targets = tiny_model().double(), torch.rand(7, 1, 28, 28).double(), torch.arange(7)
    layout = trace(module.eval(), cross_entropy, (inputs, targets))
    found = capture(module, state_of(module), cross_entropy, (inputs, targets), layout, whole).kept
    expected = in_blocks(layout, loop_gradients_by_name(module, cross_entropy, inputs, targets))
    for block, gradient in expected.items():
        assert relative_error(found[block].dense(), gradient) < DOUBLE


@CAPTURES
def test_the_loss_comes_along_without_a_graph(capture: Capture) -> None:
    module, (inputs, targets) = mlp().double().eval(), examples(torch.float64)
    layout = trace(module, cross_entropy, (inputs, targets))
    captured = capture(module, state_of(module), cross_entropy, (inputs, targets), layout, whole)
    outputs = module(inputs).detach()
    assert relative_error(captured.loss, F.cross_entropy(outputs, targets, reduction="none")) < DOUBLE
    assert not captured.loss.requires_grad


@CAPTURES
def test_frozen_parameters_are_left_out(capture: Capture) -> None:
    module, batch = frozen(mlp(), "0.weight", "0.bias", "2.bias").double().eval(), examples(torch.float64)
    layout = trace(module, cross_entropy, batch)
    gradients = capture(module, state_of(module), cross_entropy, batch, layout, whole).kept
    assert {name: tuple(gradient.dense().shape) for name, gradient in gradients.items()} == {"2.weight": (7, 3, 5)}


@CAPTURES
@pytest.mark.parametrize(
    "path",
    [["first", "last"], ["first", "second", "second", "last"], ["second", "first", "last"]],
    ids=["fewer calls", "more calls", "other layers of equal shape"],
)
def test_another_path_through_the_model_is_refused(capture: Capture, path: list[str]) -> None:
    module, batch = Routed().double().eval(), examples(torch.float64)
    layout = trace(module, cross_entropy, batch)
    module.path = path
    with pytest.raises(TaskError, match="made other calls than when it was traced"):
        capture(module, state_of(module), cross_entropy, batch, layout, whole)


@CAPTURES
def test_weights_and_gradient_fields_of_the_module_are_untouched(capture: Capture) -> None:
    module, batch = mlp().double().eval(), examples(torch.float64)
    before = {name: tensor.clone() for name, tensor in state_of(module).items()}
    layout = trace(module, cross_entropy, batch)
    elsewhere = {name: tensor + 1 for name, tensor in before.items()}
    capture(module, elsewhere, cross_entropy, batch, layout, whole)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(module).items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
