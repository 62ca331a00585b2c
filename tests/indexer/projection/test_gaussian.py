"""gaussian is an unbiased estimator of inner products, and the check that says so rejects wrong ones."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from indexer.errors import BuildError, TooLargeError
from indexer.gradients.block import DenseGradient
from indexer.gradients.layout import Block, Layout
from indexer.projection.gaussian import Gaussian
from indexer.projection.projections import project
from tests.indexer.projection.small_network import SmallGradients, measured, small_gradients
from tests.reference import relative_error

SEEDS = 400
D = 32
DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14


@pytest.fixture(scope="module")
def small() -> SmallGradients:
    return small_gradients()


class WrongVariance(Gaussian):
    """Wrong: entries N(0, 1.2 / d) instead of N(0, 1 / d)."""

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        return {name: matrix * 1.2**0.5 for name, matrix in Gaussian.matrices(self, checkpoint).items()}


class SharedMatrix(Gaussian):
    """Wrong: two blocks of the same shape get the same columns of G, which adds <g_a, g'_b> + <g_b, g'_a>."""

    def matrices(self, checkpoint: int) -> dict[str, Tensor]:
        matrices = Gaussian.matrices(self, checkpoint)
        assert matrices["5.weight"].shape == matrices["7.weight"].shape
        return matrices | {"7.weight": matrices["5.weight"]}


def test_unbiased(small: SmallGradients) -> None:
    verdict = measured(small, lambda seed: Gaussian(small.layout, D, seed), SEEDS)
    assert verdict.unbiased, verdict


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [WrongVariance, SharedMatrix])
def test_a_biased_projection_is_caught(small: SmallGradients, wrong: type[Gaussian]) -> None:
    verdict = measured(small, lambda seed: wrong(small.layout, D, seed), SEEDS)
    assert verdict.sharp and not verdict.unbiased, verdict


def test_a_bias_left_out_is_caught(small: SmallGradients) -> None:
    without = {name: DenseGradient(gradient.dense().clone()) for name, gradient in small.gradients.items()}
    for name in ("0.weight", "3.weight", "5.weight", "7.weight"):
        without[name].values[:, :, -1] = 0
    verdict = measured(small, lambda seed: Gaussian(small.layout, D, seed), SEEDS, dict(without))
    assert verdict.sharp and not verdict.unbiased, verdict


def test_the_variance_is_as_stated(small: SmallGradients) -> None:
    first = {name: DenseGradient(gradient.dense()[:1]) for name, gradient in small.gradients.items()}
    norms = []
    for seed in range(SEEDS):
        projection = Gaussian(small.layout, D, seed)
        matrices = {name: matrix.double() for name, matrix in projection.matrices(0).items()}
        norms.append(project(projection, dict(first), matrices).square().sum())
    exact = sum(gradient.square_norm() for gradient in first.values())
    variance = torch.stack(norms).var() / exact**2 * D / 2  # (|g|^4 + <g, g>^2) / d for g = g'
    assert variance.item() == pytest.approx(1, abs=0.3)  # a chi-square variance of 400 draws: 4 standard errors


def test_project_is_the_product_with_the_whole_matrix(small: SmallGradients) -> None:
    projection = Gaussian(small.layout, 5, seed=3)
    matrices: Mapping[str, Tensor] = {name: m.double() for name, m in projection.matrices(2).items()}
    whole = torch.cat([matrices[block.name] for block in small.layout.blocks], dim=1)
    gradients = torch.cat([small.gradients[b.name].dense().flatten(1) for b in small.layout.blocks], dim=1)
    assert relative_error(project(projection, small.gradients, matrices), gradients @ whole.T) < DOUBLE
    assert whole.shape == (projection.width, small.layout.size)


@pytest.mark.parametrize("numbers", [0, -3])
def test_no_numbers_are_refused(small: SmallGradients, numbers: int) -> None:
    with pytest.raises(BuildError, match=f"gaussian with numbers={numbers}: expected at least 1"):
        Gaussian(small.layout, numbers)


def test_a_matrix_that_does_not_fit_is_refused_with_its_size() -> None:
    layout = Layout((Block("fc.weight", ("fc.weight",), (1000, 2000), "factors", "linear"),), ())
    text = r"gaussian with numbers=1024 needs 7.6 GiB .* \(2,000,000 trainable parameters\); use rank1"
    with pytest.raises(TooLargeError, match=text):
        Gaussian(layout, 1024)
    assert Gaussian(layout, 512).width == 512  # 3.8 GiB, and nothing is drawn yet
