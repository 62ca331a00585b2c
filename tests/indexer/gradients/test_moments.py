"""Second moments, whole or times a thin matrix, against sums over gradients of a loop of ``backward()``."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.gradients.block import BlockGradient, DenseGradient, FactorGradient, ScaledGradient
from indexer.gradients.capture import eager, whole
from indexer.gradients.moments import Side, moment_times
from indexer.gradients.trace import trace
from indexer.gradients.uses import EmbeddingUse, LinearUse
from tests.reference import Batch, in_blocks, loop_gradients_by_name, relative_error

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
SINGLE = 1e-5  # float32: the same sums round at 1e-7 and lose a digit or two
WORDS, B = 30, 7


class Tied(nn.Module):
    """Tokens [b, t] -> [b, t, words]: the table of the words is the weight of the head, and swaps its sides there."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.words(tokens)), self.words.weight)


class Twice(nn.Module):
    """[b, 8] -> [b, 8] by one layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(torch.tanh(self.layer(x)))
        return found


@dataclass(frozen=True, slots=True)
class Case:
    """A model whose first block is looked at, its inputs, and whether its gradient is formed rather than factored."""

    module: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    formed: bool


def values(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(B, *shape, dtype=torch.float64)


def tokens(t: int) -> Callable[[], Tensor]:
    return lambda: torch.randint(WORDS, (B, t))


CASES = {
    "linear": Case(lambda: nn.Linear(6, 4), values(6), False),
    "few positions": Case(lambda: nn.Linear(20, 15), values(3, 20), False),
    "many positions": Case(lambda: nn.Linear(3, 4), values(9, 3), True),
    "convolution": Case(lambda: nn.Conv2d(8, 12, 3), values(8, 4, 4), False),
    "convolution of many pixels": Case(lambda: nn.Conv2d(1, 4, 3), values(1, 8, 8), True),
    "grouped convolution": Case(lambda: nn.Conv2d(8, 12, 3, groups=2), values(8, 3, 3), False),
    "embedding": Case(lambda: nn.Sequential(nn.Embedding(WORDS, 6), nn.Tanh(), nn.Linear(6, 4)), tokens(3), False),
    "embedding of many tokens": Case(lambda: nn.Sequential(nn.Embedding(WORDS, 6), nn.Tanh()), tokens(40), True),
    "tied": Case(Tied, tokens(2), False),
    "called twice": Case(Twice, values(8), False),
    "normalisation": Case(lambda: nn.LayerNorm(6), values(6), False),
}
ALL = pytest.mark.parametrize("name", CASES)
SIDES = pytest.mark.parametrize("side", ["left", "right"])
THIN = pytest.mark.parametrize("thin", [True, False], ids=["thin", "whole"])


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss whose gradient differs by output: the square of what a fixed pattern weighs of the output."""
    flat = outputs.flatten(1)
    pattern = torch.linspace(-1, 2, flat.shape[1], dtype=outputs.dtype)
    return (flat.square() * pattern).sum(1) + (targets * flat).sum(1)


def found_and_expected(name: str) -> tuple[BlockGradient, Tensor]:
    """The gradient of the first block as it is captured, and by the loop."""
    case = CASES[name]
    module, inputs = case.module().double().eval(), case.inputs()
    batch: Batch = (inputs, torch.randn(B, 1, dtype=torch.float64))
    layout = trace(module, squared, batch)
    state = {name: tensor.detach() for name, tensor in module.named_parameters()}
    gradient = eager(module, state, squared, batch, layout, whole).kept[layout.blocks[0].name]
    loop = in_blocks(layout, loop_gradients_by_name(module, squared, *batch))[layout.blocks[0].name]
    return gradient, loop


def slow(gradients: Tensor, side: Side, weights: Tensor) -> Tensor:
    """The definition, an example at a time."""
    parts = [
        w * (g @ g.T if side == "left" else g.T @ g) for w, g in zip(weights.tolist(), gradients.double(), strict=True)
    ]
    return torch.stack(parts).sum(0)


def thin_matrix(moment: Tensor) -> Tensor:
    return torch.randn(len(moment), 3, dtype=torch.float64)


@ALL
@SIDES
@THIN
def test_a_moment_is_the_sum_over_examples(name: str, side: Side, thin: bool) -> None:
    gradient, loop = found_and_expected(name)
    assert not isinstance(gradient, FactorGradient) or gradient.dense_is_cheaper is CASES[name].formed
    weights = torch.rand(B, dtype=torch.float64)
    expected = slow(loop, side, weights)
    matrix = thin_matrix(expected) if thin else None
    found = moment_times(gradient, side, weights, matrix)
    assert relative_error(found, expected if matrix is None else expected @ matrix) < DOUBLE


@ALL
@SIDES
@THIN
def test_a_batch_that_is_taken_in_chunks_gives_the_same(
    name: str, side: Side, thin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradient, loop = found_and_expected(name)
    weights = torch.rand(B, dtype=torch.float64)
    expected = slow(loop, side, weights)
    matrix = thin_matrix(expected) if thin else None
    monkeypatch.setattr("indexer.gradients.block.CHUNK", 2)
    if isinstance(gradient, FactorGradient):
        parts = list(gradient.formed() if gradient.dense_is_cheaper else gradient.in_chunks())
        assert len(parts) > 3
    found = moment_times(gradient, side, weights, matrix)
    assert relative_error(found, expected if matrix is None else expected @ matrix) < DOUBLE


@SIDES
@THIN
@pytest.mark.parametrize("name", ["linear", "convolution of many pixels", "embedding"])
def test_scaled_and_dense_gradients_are_formed(name: str, side: Side, thin: bool) -> None:
    gradient, loop = found_and_expected(name)
    scale = torch.rand(loop.shape[1:], dtype=torch.float64)
    weights = torch.rand(B, dtype=torch.float64)
    for held, gradients in ((ScaledGradient(gradient, scale), loop * scale), (DenseGradient(loop), loop)):
        expected = slow(gradients, side, weights)
        matrix = thin_matrix(expected) if thin else None
        found = moment_times(held, side, weights, matrix)
        assert relative_error(found, expected if matrix is None else expected @ matrix) < DOUBLE


@SIDES
def test_cross_terms_between_calls_count(side: Side) -> None:
    use = LinearUse(torch.randn(3, 4), torch.randn(3, 5), bias=True)
    once, twice = (moment_times(FactorGradient(uses), side, torch.ones(3), None) for uses in ((use,), (use, use)))
    assert relative_error(twice, 4 * once) < SINGLE  # not 2


@SIDES
@THIN
def test_float32_stays_float32(side: Side, thin: bool) -> None:
    gradient, loop = found_and_expected("embedding")
    assert isinstance(gradient, FactorGradient)
    [use] = gradient.uses
    assert isinstance(use, EmbeddingUse)
    weights = torch.rand(B)
    expected = slow(loop, side, weights)
    matrix = thin_matrix(expected).float() if thin else None
    single = FactorGradient((EmbeddingUse(use.tokens, use.delta.float(), use.rows),))
    found = moment_times(single, side, weights, matrix)
    assert found.dtype == torch.float32
    assert relative_error(found, expected if matrix is None else expected @ matrix.double()) < SINGLE


def test_a_long_side_of_words_is_never_formed() -> None:
    """50,000 words: their moment would take 10 GB; a token that no example has keeps a row of zero."""
    ids = torch.randint(40_000, (4, 5))
    gradient = FactorGradient((EmbeddingUse(ids, torch.randn(4, 5, 8), 50_000),))
    matrix, weights = torch.randn(50_000, 6), torch.rand(4)
    found = moment_times(gradient, "left", weights, matrix)
    used = torch.unique(ids)
    rows = gradient.dense()[:, used]
    expected = slow(rows, "left", weights) @ matrix[used].double()
    assert relative_error(found[used], expected) < SINGLE
    assert found.count_nonzero() == 6 * len(used)
