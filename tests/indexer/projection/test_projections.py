"""What all projections share: linear, the same for equal seeds, another for everything else; and the choice by name."""

from typing import Any

import pytest
import torch
from torch import Tensor

from indexer.errors import BuildError
from indexer.gradients.block import DenseGradient
from indexer.gradients.capture import Gradients
from indexer.gradients.layout import Block, Layout
from indexer.projection.projections import PROJECTIONS, Projection, make_projection, project
from tests.reference import relative_error

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
PARAMETERS: dict[str, dict[str, Any]] = {"identity": {}, "gaussian": {"numbers": 24}, "rank1": {"numbers": 24}}
ALL = pytest.mark.parametrize("name", PROJECTIONS)
RANDOM = pytest.mark.parametrize("name", ["gaussian", "rank1"])

LAYOUT = Layout(
    (
        Block("a", ("a",), (9, 11), "factors", "linear"),
        Block("b", ("b",), (9, 11), "factors", "linear"),
        Block("c", ("c",), (7, 1), "vmap", "no rule"),
    ),
    (),
)


def made(name: str, **more: Any) -> Projection:
    """The projection of that name for three blocks."""
    return make_projection(LAYOUT, {"name": name, **PARAMETERS[name], **more})


def random_gradients(b: int = 4) -> Gradients:
    """Dense random gradients."""
    return {block.name: DenseGradient(torch.randn(b, *block.shape, dtype=torch.float64)) for block in LAYOUT.blocks}


def projected(projection: Projection, gradients: Gradients, checkpoint: int = 0) -> Tensor:
    """Project in float64."""
    matrices = {name: matrix.double() for name, matrix in projection.matrices(checkpoint).items()}
    return project(projection, gradients, matrices)


def test_every_projection_is_covered_here() -> None:
    assert set(PARAMETERS) == set(PROJECTIONS)


@ALL
def test_linear(name: str) -> None:
    projection, g, h = made(name), random_gradients(), random_gradients()
    both: Gradients = {key: DenseGradient(2 * g[key].dense() - 3 * h[key].dense()) for key in g}
    expected = 2 * projected(projection, g) - 3 * projected(projection, h)
    assert relative_error(projected(projection, both), expected) < DOUBLE


@ALL
def test_every_example_alone(name: str) -> None:
    projection, g = made(name), random_gradients()
    one: Gradients = {key: DenseGradient(gradient.dense()[2:3]) for key, gradient in g.items()}
    assert relative_error(projected(projection, one), projected(projection, g)[2:3]) < DOUBLE


@ALL
def test_vectors_have_the_stated_width(name: str) -> None:
    projection = made(name)
    assert isinstance(projection, Projection)
    assert projected(projection, random_gradients()).shape == (4, projection.width)


@RANDOM
def test_equal_seeds_give_equal_matrices(name: str) -> None:
    first, second = made(name, seed=5).matrices(1), made(name, seed=5).matrices(1)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@RANDOM
def test_another_seed_or_checkpoint_gives_other_matrices_of_the_same_shape(name: str) -> None:
    first = made(name, seed=5).matrices(1)
    for other in (made(name, seed=6).matrices(1), made(name, seed=5).matrices(2)):
        assert {key: m.shape for key, m in other.items()} == {key: m.shape for key, m in first.items()}
        assert not any((first[key] == other[key]).any() for key in first)


@RANDOM
def test_no_two_matrices_of_a_checkpoint_are_the_same(name: str) -> None:
    heads = [tuple(matrix.flatten()[:4].tolist()) for matrix in made(name).matrices(0).values()]
    assert len(set(heads)) == len(heads) >= 3


def test_an_unknown_projection_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BuildError, match="unknown projection 'pac'; expected one of identity, gaussian, rank1"):
        make_projection(LAYOUT, {"name": "pac"})
    with pytest.raises(BuildError, match="unknown projection None; expected one of"):
        make_projection(LAYOUT, {})


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"name": "rank1", "number": 24}, r"projection 'rank1' does not take the parameters \['number'\]"),
        ({"name": "rank1"}, r"projection 'rank1' does not take the parameters \[\]"),
        ({"name": "identity", "seed": 1}, r"projection 'identity' does not take the parameters \['seed'\]"),
        ({"name": "gaussian", "numbers": 8, "sed": 1}, r"'gaussian' does not take the parameters \['numbers', 'sed'\]"),
    ],
)
def test_unknown_or_missing_parameters_are_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(BuildError, match=text):
        make_projection(LAYOUT, parameters)


def test_the_given_parameters_are_not_changed() -> None:
    parameters = {"name": "rank1", "numbers": 24}
    make_projection(LAYOUT, parameters)
    assert parameters == {"name": "rank1", "numbers": 24}
