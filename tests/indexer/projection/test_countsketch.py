"""countsketch is the sum over entries, one by one, that its codes describe; unbiased, and as exact as stated."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from indexer.errors import BuildError, TooLargeError
from indexer.gradients.block import DenseGradient, FactorGradient
from indexer.gradients.capture import Gradients
from indexer.gradients.layout import Block, Layout
from indexer.gradients.uses import EmbeddingUse, LinearUse
from indexer.projection.countsketch import CountSketch
from indexer.projection.projections import project
from tests.indexer.projection.small_network import SmallGradients, measured, small_gradients
from tests.reference import relative_error

SEEDS = 400
DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
SINGLE = 1e-5  # float32: the same sums round at 1e-7 a term
BY_ENTRIES, BY_SIDES = 32, 14  # numbers: all blocks of the small network; 20 x 21 and 20 x 37 by sides, the others not


@pytest.fixture(scope="module")
def small() -> SmallGradients:
    return small_gradients()


class OneSign(CountSketch):
    """Wrong: no entry is ever taken away, which adds to <g, g'> the products of all entries that meet."""

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        return {name: codes % self.numbers for name, codes in CountSketch.matrices(self, checkpoint).items()}


class SharedCodes(CountSketch):
    """Wrong: two blocks of the same shape have the same codes, which adds <g_a, g'_b> + <g_b, g'_a>."""

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        codes = CountSketch.matrices(self, checkpoint)
        return codes | {name.replace("5", "7"): held for name, held in codes.items() if name.startswith("5.weight")}


def layout_of(*shapes: tuple[int, int]) -> Layout:
    """Blocks of these shapes."""
    return Layout(tuple(Block(f"{i}", (f"{i}",), shape, "factors", "linear") for i, shape in enumerate(shapes)), ())


def entry_by_entry(projection: CountSketch, gradients: Gradients, matrices: Mapping[str, Tensor]) -> Tensor:
    """The definition: every entry of the dense gradient is added to its number, or taken from it."""
    d = projection.numbers
    sketches = []
    for i in range(len(next(iter(gradients.values())).dense())):
        sketch = [0.0] * d
        for block in projection.layout.blocks:
            (m, n), dense = block.shape, gradients[block.name].dense()[i].tolist()
            for row in range(m):
                for column in range(n):
                    if m * n <= d * d:
                        code = int(matrices[f"{block.name}/entries"][row * n + column])
                    else:
                        left, right = matrices[f"{block.name}/left"][row], matrices[f"{block.name}/right"][column]
                        code = int(left + right) % (2 * d)
                    sketch[code % d] += dense[row][column] if code < d else -dense[row][column]
        sketches.append(sketch)
    return torch.tensor(sketches, dtype=torch.float64)


def in_double(projection: CountSketch, checkpoint: int = 0) -> dict[str, Tensor]:
    """Codes for gradients in float64."""
    return {name: codes.double() for name, codes in projection.matrices(checkpoint).items()}


def linear(b: int, t: int, m: int, n: int, **options: Any) -> FactorGradient:
    """A linear layer with a bias at several positions; n counts the bias."""
    return FactorGradient((LinearUse(torch.randn(b, t, m, **options), torch.randn(b, t, n - 1, **options), True),))


@pytest.mark.parametrize("numbers", [1, 2, 3, 5, 6, 7, 9, 16])
def test_it_is_the_sum_over_entries(numbers: int) -> None:
    """Blocks with both sides longer than d, with one, and with none."""
    projection = CountSketch(layout_of((8, 12), (3, 20), (20, 3), (2, 2), (5, 1), (11, 4)), numbers, seed=2)
    gradients: Gradients = {
        "0": linear(2, 1, 8, 12, dtype=torch.float64),
        "1": linear(2, 4, 3, 20, dtype=torch.float64),
        "2": DenseGradient(torch.randn(2, 20, 3, dtype=torch.float64)),
        "3": linear(2, 3, 2, 2, dtype=torch.float64),
        "4": linear(2, 3, 5, 1, dtype=torch.float64),
        "5": FactorGradient((EmbeddingUse(torch.randint(11, (2, 6)), torch.randn(2, 6, 4, dtype=torch.float64), 11),)),
    }
    codes = in_double(projection, checkpoint=1)
    found = project(projection, gradients, codes)
    assert found.shape == (2, projection.width) == (2, numbers)
    assert relative_error(found, entry_by_entry(projection, gradients, codes)) < DOUBLE


def test_a_real_gradient_by_entries_and_by_sides(small: SmallGradients) -> None:
    few: Gradients = {name: DenseGradient(gradient.dense()[:2]) for name, gradient in small.gradients.items()}
    for numbers, parts in ((BY_ENTRIES, {"entries"}), (BY_SIDES, {"entries", "left", "right"})):
        projection = CountSketch(small.layout, numbers)
        codes = in_double(projection)
        assert {name.split("/")[1] for name in codes} == parts
        expected = entry_by_entry(projection, few, codes)
        assert relative_error(project(projection, small.gradients, codes)[:2], expected) < DOUBLE


def test_what_is_drawn_is_short_and_the_same_in_shape_at_every_checkpoint() -> None:
    projection = CountSketch(layout_of((30, 40), (5, 6)), 6)
    shapes = {"0/left": (30,), "0/right": (40,), "1/entries": (30,)}
    for checkpoint in (0, 3):
        assert {name: codes.shape for name, codes in projection.matrices(checkpoint).items()} == shapes
    drawn = CountSketch(layout_of((100, 100)), 100).matrices(0)["0/entries"]
    assert set(drawn.tolist()) == set(range(200))
    assert drawn.dtype == torch.float32


@pytest.mark.parametrize("numbers", [BY_ENTRIES, BY_SIDES])
def test_unbiased(small: SmallGradients, numbers: int) -> None:
    verdict = measured(small, lambda seed: CountSketch(small.layout, numbers, seed), SEEDS)
    assert verdict.unbiased, verdict


@pytest.mark.parametrize("numbers", [BY_ENTRIES, BY_SIDES])
@pytest.mark.parametrize("wrong", [OneSign, SharedCodes])
def test_a_biased_projection_is_caught(small: SmallGradients, wrong: type[CountSketch], numbers: int) -> None:
    verdict = measured(small, lambda seed: wrong(small.layout, numbers, seed), SEEDS)
    assert verdict.sharp and not verdict.unbiased, verdict


def products(shape: tuple[int, int], numbers: int, pair: Tensor, seeds: int = 1000) -> Tensor:
    """<P a, P b> over seeds, of a pair of gradients [2, m, n]."""
    found = []
    for seed in range(seeds):
        projection = CountSketch(layout_of(shape), numbers, seed)
        sketches = project(projection, {"0": DenseGradient(pair)}, in_double(projection))
        found.append(sketches[0] @ sketches[1])
    return torch.stack(found)


@pytest.mark.parametrize("same", [True, False])
def test_the_variance_by_entries_is_as_stated(same: bool) -> None:
    pair = torch.randn(2, 12, 15, dtype=torch.float64)
    pair[1] = pair[0] if same else pair[1]
    a, b = pair.flatten(1)
    exact = (a @ a) * (b @ b) + (a @ b) ** 2 - 2 * (a**2 @ b**2)
    variance = products((12, 15), 16, pair).var() / exact * 16
    assert variance.item() == pytest.approx(1, abs=0.25)  # a variance of 1000 draws: 4 standard errors, kurtosis 5


@pytest.mark.parametrize("same", [True, False])
def test_the_variance_of_outer_products_by_sides_is_as_stated(same: bool) -> None:
    left, right = torch.randn(2, 200, dtype=torch.float64), torch.randn(2, 300, dtype=torch.float64)
    if same:
        left[1], right[1] = left[0], right[0]
    pair = left[:, :, None] * right[:, None, :]
    (xx, xu), (_, uu) = (left @ left.T).tolist()
    (yy, yv), (_, vv) = (right @ right.T).tolist()
    stated = ((xx * uu + xu**2) * (yy * vv + yv**2) + 2 * xu**2 * yv**2) / 64
    variance = products((200, 300), 64, pair).var() / stated
    assert variance.item() == pytest.approx(1, abs=0.35)  # 4 standard errors at a kurtosis of 9; "about": 1/d more


@pytest.mark.parametrize("numbers", [5, 12, 40])
def test_all_checkpoints_at_once_are_one_after_the_other(numbers: int) -> None:
    projection = CountSketch(layout_of((10, 12), (4, 30), (6, 1)), numbers)
    factors = [(10, 12), (4, 30), (6, 1)]
    deltas = [torch.randn(3, 2, 5, m) for m, _ in factors]
    inputs = [torch.randn(3, 2, 5, n - 1) for _, n in factors]
    drawn = [projection.matrices(i) for i in range(3)]
    stacked = {name: torch.stack([codes[name] for codes in drawn]) for name in drawn[0]}

    def one(deltas: list[Tensor], inputs: list[Tensor], codes: dict[str, Tensor]) -> Tensor:
        uses = [LinearUse(delta, x, True) for delta, x in zip(deltas, inputs, strict=True)]
        return project(projection, {f"{i}": FactorGradient((use,)) for i, use in enumerate(uses)}, codes)

    expected = torch.stack([one([d[i] for d in deltas], [x[i] for x in inputs], drawn[i]) for i in range(3)])
    assert relative_error(vmap(one)(deltas, inputs, stacked), expected) < SINGLE


@pytest.mark.parametrize("numbers", [0, -3, 2**23 + 1])
def test_no_numbers_and_too_many_are_refused(small: SmallGradients, numbers: int) -> None:
    text = f"countsketch with numbers={numbers}: expected at least 1 and at most 8,388,608"
    with pytest.raises(BuildError, match=text):
        CountSketch(small.layout, numbers)


def test_what_does_not_fit_is_refused_with_its_size() -> None:
    by_entries = layout_of((40_000, 40_000))
    text = r"numbers=50000 needs 6.0 GiB at each checkpoint \(1,600,000,000 trainable parameters\); ask for fewer"
    with pytest.raises(TooLargeError, match=text):
        CountSketch(by_entries, 50_000)
    with pytest.raises(TooLargeError, match=r"numbers=30000 needs 8.9 GiB"):  # two matrices of 30,000 x 40,000
        CountSketch(by_entries, 30_000)
    assert CountSketch(by_entries, 10_000).width == 10_000  # 3.0 GiB, and nothing is drawn yet


def test_codes_in_half_precision_are_refused() -> None:
    projection = CountSketch(layout_of((3, 4)), 12)
    codes = {name: held.bfloat16() for name, held in projection.matrices(0).items()}
    with pytest.raises(AssertionError, match="bfloat16 does not hold every code"):
        project(projection, {"0": DenseGradient(torch.randn(2, 3, 4))}, codes)
