"""What a call of each watched function means: its geometry, its rule, or why it has none."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.gradients.calls import watching
from indexer.gradients.convolution_use import Geometry
from indexer.gradients.functions import BINDERS, FunctionCall
from indexer.gradients.rules import Convolve, Embed, EmbedBag, Normalise, Scale, TransposedConvolve, TransposedLinear

ROUNDING = 1e-6  # float32, one normalisation


class Notes:
    """A recorder that writes every call down and lets the output pass."""

    def __init__(self) -> None:
        self.calls: list[FunctionCall] = []

    def record(self, call: FunctionCall, output: Tensor) -> Tensor:
        self.calls.append(call)
        return output


def call_of(layer: nn.Module, x: Tensor) -> FunctionCall:
    """The one recorded call of a layer in eval mode."""
    with watching(notes := Notes()):
        layer.eval()(x)
    (call,) = notes.calls
    return call


def test_every_binder_takes_the_name_of_a_torch_function() -> None:
    assert all(callable(getattr(module, name)) for module, name in BINDERS)


@pytest.mark.parametrize(
    ("layer", "geometry"),
    [
        (nn.Conv2d(2, 3, 3), Geometry((3, 3), (1, 1), (0, 0), (1, 1), 1)),
        (nn.Conv2d(2, 3, (3, 1), (2, 1), (1, 0)), Geometry((3, 1), (2, 1), (1, 0), (1, 1), 1)),
        (nn.Conv2d(2, 4, 2, padding="valid", groups=2), Geometry((2, 2), (1, 1), (0, 0), (1, 1), 2)),
        (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), Geometry((3, 3), (1, 1), (0, 0), (1, 1), 1)),
        (nn.Conv2d(2, 3, (5, 3), padding="same", dilation=2), Geometry((5, 3), (1, 1), (0, 0), (2, 2), 1)),
    ],
    ids=["plain", "rectangular", "valid and grouped", "padded before", "same"],
)
def test_geometry_of_a_convolution(layer: nn.Conv2d, geometry: Geometry) -> None:
    call = call_of(layer, torch.zeros(2, 2, 9, 9))
    assert call.rule == Convolve(geometry)
    assert call.unsupported is None


def test_same_padding_is_in_the_input() -> None:
    call = call_of(nn.Conv2d(2, 3, (5, 3), padding="same"), torch.ones(2, 2, 9, 9))
    assert call.x.shape == (2, 2, 13, 11)
    assert call.x[:, :, :2].abs().sum() == call.x[:, :, :, -1].abs().sum() == 0


def test_geometry_of_a_transposed_convolution() -> None:
    layer = nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=2)
    call = call_of(layer, torch.zeros(2, 4, 9))
    assert call.rule == TransposedConvolve(Geometry((3,), (2,), (1,), (2,), 2))


def test_an_embedding_knows_its_rows_and_its_padding() -> None:
    tokens = torch.zeros(2, 3, dtype=torch.long)
    assert call_of(nn.Embedding(7, 2, padding_idx=-1), tokens).rule == Embed(7, 6)
    assert call_of(nn.Embedding(7, 2), tokens).rule == Embed(7, None)


@pytest.mark.parametrize(
    ("layer", "rule"),
    [
        (nn.LayerNorm(5), Scale(Normalise("layer", 1e-5, (5,)), channels=False, axes=1)),
        (nn.LayerNorm((4, 5)), Scale(Normalise("layer", 1e-5, (4, 5)), channels=False, axes=2)),
        (nn.RMSNorm(5), Scale(Normalise("rms", None, (5,)), channels=False, axes=1)),
        (nn.RMSNorm(5, eps=0.1), Scale(Normalise("rms", 0.1, (5,)), channels=False, axes=1)),
        (nn.GroupNorm(2, 4, eps=0.1), Scale(Normalise("group", 0.1, groups=2), channels=True)),
        (nn.BatchNorm1d(4, eps=0.1), Scale(Normalise("batch", 0.1), channels=True)),
    ],
    ids=["layer", "layer over two axes", "rms", "rms with eps", "group", "batch"],
)
def test_a_normalisation_finds_what_its_weight_multiplies(layer: nn.Module, rule: Scale) -> None:
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, 1.0 if name == "weight" else 0.0)
    for buffer in layer.buffers():
        buffer += torch.rand(buffer.shape).to(buffer.dtype)
    x = torch.randn(3, 4, 5)
    call = call_of(layer, x)
    assert call.rule == rule
    found, factor = rule.normalise(call.x, call.constants), rule.normalise.factor(call.constants)
    found = found if factor is None else found * factor[:, None]
    torch.testing.assert_close(found, layer(x).detach(), atol=ROUNDING, rtol=ROUNDING)


@pytest.mark.parametrize(("mode", "mean"), [("sum", False), ("mean", True)])
def test_a_bag_knows_its_rows_its_padding_and_its_mean(mode: str, mean: bool) -> None:
    tokens = torch.zeros(2, 3, dtype=torch.long)
    assert call_of(nn.EmbeddingBag(7, 2, mode=mode, padding_idx=-1), tokens).rule == EmbedBag(7, 6, mean)
    assert call_of(nn.EmbeddingBag(7, 2, mode=mode), tokens).rule == EmbedBag(7, None, mean)


def test_addmm_is_a_linear_layer_whose_weight_is_the_other_way_round() -> None:
    bias, x, weight = torch.zeros(5), torch.ones(2, 3), torch.ones(3, 5)
    with watching(notes := Notes()):
        torch.addmm(bias, x, weight)
        torch.addmm(bias, x, weight, alpha=2)
        torch.addmm(torch.zeros(2, 5), x, weight)
    assert [call.rule for call in notes.calls] == [TransposedLinear(), None, None]
    assert notes.calls[0].x is x and notes.calls[0].weight is weight and notes.calls[0].bias is bias
    assert notes.calls[1].unsupported == notes.calls[2].unsupported == "addmm with factors, or without a vector as bias"


def test_a_vector_as_weight_has_no_rule() -> None:
    with watching(notes := Notes()):
        F.linear(torch.ones(4, 3), torch.ones(3))
    assert notes.calls[0].unsupported == "linear with a vector as weight"


@pytest.mark.parametrize(
    ("layer", "x", "why"),
    [
        (nn.Conv2d(2, 3, 3), torch.zeros(2, 9, 9), "conv2d without a batch axis"),
        (nn.ConvTranspose2d(2, 3, 3), torch.zeros(2, 9, 9), "conv_transpose2d without a batch axis"),
        (nn.Embedding(7, 2, max_norm=1.0), torch.zeros(2, dtype=torch.long), "embedding with max_norm"),
        (
            nn.Embedding(7, 2, scale_grad_by_freq=True),
            torch.zeros(2, dtype=torch.long),
            "embedding with scale_grad_by_freq",
        ),
        (nn.EmbeddingBag(7, 2, mode="max"), torch.zeros(2, 3, dtype=torch.long), "embedding_bag with mode='max'"),
        (nn.EmbeddingBag(7, 2, max_norm=1.0), torch.zeros(2, 3, dtype=torch.long), "embedding_bag with max_norm"),
        (nn.BatchNorm1d(4, track_running_stats=False), torch.zeros(2, 4), "batch_norm over the batch itself"),
    ],
)
def test_what_has_no_rule_says_why(layer: nn.Module, x: Tensor, why: str) -> None:
    call = call_of(layer, x)
    assert call.rule is None
    assert call.unsupported == why
