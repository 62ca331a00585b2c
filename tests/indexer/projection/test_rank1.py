"""rank1 is an unbiased estimator of inner products, leaves short sides alone, and keeps to its numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from indexer.errors import BuildError
from indexer.gradients.block import DenseGradient
from indexer.gradients.layout import Block, Layout
from indexer.projection.projections import project
from indexer.projection.rank1 import Rank1
from tests.indexer.projection.small_network import SmallGradients, measured, small_gradients
from tests.reference import relative_error

SEEDS = 400
NUMBERS = 320  # 64 a block: 8 x 8, and 4 x 10 for the convolution, which is left alone
DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14


@pytest.fixture(scope="module")
def small() -> SmallGradients:
    return small_gradients()


class VarianceOfTheProduct(Rank1):
    """Wrong: G1 with variance 1/(r1 r2), that of a dense matrix, instead of 1/r1."""

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        matrices = Rank1.matrices(self, checkpoint)
        for block in self.layout.blocks:
            if f"{block.name}/left" in matrices:
                matrices[f"{block.name}/left"] = matrices[f"{block.name}/left"] / self.sides(block)[1] ** 0.5
        return matrices


class SharedByTwoParameters(Rank1):
    """Two blocks of the same shape with the same matrices: no cross terms, as blocks are concatenated."""

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        matrices = Rank1.matrices(self, checkpoint)
        return matrices | {f"7.weight/{side}": matrices[f"5.weight/{side}"] for side in ("left", "right")}


def layout_of(*shapes: tuple[int, int]) -> Layout:
    """Blocks of these shapes."""
    return Layout(tuple(Block(f"{i}", (f"{i}",), shape, "factors", "linear") for i, shape in enumerate(shapes)), ())


def test_unbiased(small: SmallGradients) -> None:
    verdict = measured(small, lambda seed: Rank1(small.layout, NUMBERS, seed), SEEDS)
    assert verdict.unbiased, verdict


def test_a_wrong_variance_is_caught(small: SmallGradients) -> None:
    verdict = measured(small, lambda seed: VarianceOfTheProduct(small.layout, NUMBERS, seed), SEEDS)
    assert verdict.sharp and not verdict.unbiased, verdict


def test_a_bias_left_out_is_caught(small: SmallGradients) -> None:
    without = {name: DenseGradient(gradient.dense().clone()) for name, gradient in small.gradients.items()}
    for name in ("0.weight", "3.weight", "5.weight", "7.weight"):
        without[name].values[:, :, -1] = 0
    verdict = measured(small, lambda seed: Rank1(small.layout, NUMBERS, seed), SEEDS, dict(without))
    assert verdict.sharp and not verdict.unbiased, verdict


def test_matrices_shared_by_two_parameters_add_no_bias(small: SmallGradients) -> None:
    verdict = measured(small, lambda seed: SharedByTwoParameters(small.layout, NUMBERS, seed), SEEDS)
    assert verdict.unbiased, verdict


def test_project_is_the_flattened_sandwiches(small: SmallGradients) -> None:
    projection = Rank1(small.layout, NUMBERS, seed=3)
    matrices = {name: matrix.double() for name, matrix in projection.matrices(1).items()}
    identity = torch.eye(100, dtype=torch.float64)
    expected = []
    for block in small.layout.blocks:
        left = matrices.get(f"{block.name}/left", identity[: block.shape[0], : block.shape[0]])
        right = matrices.get(f"{block.name}/right", identity[: block.shape[1], : block.shape[1]])
        expected.append((left @ small.gradients[block.name].dense() @ right.T).flatten(1))
    assert relative_error(project(projection, small.gradients, matrices), torch.cat(expected, dim=1)) < DOUBLE


def test_ten_classes_stay_ten_numbers() -> None:
    projection = Rank1(layout_of((10, 785), (200, 10)), 512)
    matrices = projection.matrices(0)
    assert set(matrices) == {"0/right", "1/left"}
    assert [projection.sides(block) for block in projection.layout.blocks] == [(10, 25), (25, 10)]
    assert projection.width == 500


def test_a_block_within_its_share_is_kept_whole() -> None:
    projection = Rank1(layout_of((10, 20), (500, 500)), 400)
    assert projection.sides(projection.layout.blocks[0]) == (10, 20)
    assert {name.split("/")[0] for name in projection.matrices(0)} == {"1"}


def test_a_long_thin_block_uses_its_share() -> None:
    projection = Rank1(layout_of((1000, 1), (1, 1000)), 64)
    assert [projection.sides(block) for block in projection.layout.blocks] == [(32, 1), (1, 32)]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(shapes=st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 2000)), min_size=1, max_size=5), data=st.data())
def test_sides_fit_the_block_and_its_share(shapes: list[tuple[int, int]], data: st.DataObject) -> None:
    numbers = data.draw(st.integers(len(shapes), 5000))
    projection = Rank1(layout_of(*shapes), numbers)
    share = numbers // len(shapes)
    for block in projection.layout.blocks:
        (m, n), (r1, r2) = block.shape, projection.sides(block)
        assert 1 <= r1 <= m and 1 <= r2 <= n and r1 * r2 <= share
        assert r1 * r2 > share / 2 or (r1, r2) == (m, n)  # at least half of the share is used, or all of the block
    assert projection.width <= numbers


def test_too_few_numbers_are_refused() -> None:
    with pytest.raises(BuildError, match="rank1 with numbers=2: expected at least 3, one number for each parameter bl"):
        Rank1(layout_of((3, 4), (3, 4), (3, 4)), 2)
