"""What all projections share: linear, the same for equal seeds, another for everything else; and the choice by name."""

from typing import Any

import pytest
import torch
from torch import Tensor

from indexer.errors import BuildError
from indexer.gradients.block import DenseGradient
from indexer.gradients.capture import Gradients
from indexer.gradients.layout import Block, Layout
from indexer.projection.projections import FITTED, PROJECTIONS, Projection, describe, make_projection, named, project
from tests.indexer.projection.random_bases import random_bases
from tests.indexer.projection.small_network import in_double
from tests.reference import relative_error

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
PARAMETERS: dict[str, dict[str, Any]] = {
    "identity": {},
    "gaussian": {"numbers": 24},
    "rank1": {"numbers": 24},
    "countsketch": {"numbers": 9},  # the first two blocks by sides, the third by entries
    "pca": {"bytes": 64, "sample": 100},
}
ALL = pytest.mark.parametrize("name", PROJECTIONS)
RANDOM = pytest.mark.parametrize("name", ["gaussian", "rank1", "countsketch"])

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
    bases = random_bases(LAYOUT, checkpoints=3) if name in FITTED else ()
    return make_projection(LAYOUT, {"name": name, **PARAMETERS[name], **more}, bases)


def random_gradients(b: int = 4) -> Gradients:
    """Dense random gradients."""
    return {block.name: DenseGradient(torch.randn(b, *block.shape, dtype=torch.float64)) for block in LAYOUT.blocks}


def projected(projection: Projection, gradients: Gradients, checkpoint: int = 0) -> Tensor:
    """Project in float64."""
    return project(projection, gradients, in_double(projection.matrices(checkpoint)))


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


@ALL
def test_a_weight_of_a_block_is_a_weight_of_its_gradient(name: str) -> None:
    projection, g = made(name), random_gradients()
    weights = {"a": torch.tensor(0.5), "b": torch.tensor(3.0), "c": torch.tensor(0.0)}
    weighted: Gradients = {key: DenseGradient(weights[key] * gradient.dense()) for key, gradient in g.items()}
    matrices = in_double(projection.matrices(0))
    expected = project(projection, weighted, matrices)
    assert relative_error(project(projection, g, matrices, weights), expected) < DOUBLE


@ALL
def test_pieces_may_come_in_any_order(name: str) -> None:
    projection, g = made(name), random_gradients()
    assert torch.equal(projected(projection, dict(reversed(g.items()))), projected(projection, g))


@ALL
def test_what_a_projection_says_of_itself_makes_it_again(name: str) -> None:
    projection = made(name)
    parameters = describe(projection)
    assert parameters["name"] == name and parameters.items() >= PARAMETERS[name].items()
    bases = getattr(projection, "bases", ())
    assert describe(make_projection(LAYOUT, parameters, bases)) == parameters
    g = random_gradients()
    assert torch.equal(projected(make_projection(LAYOUT, parameters, bases), g), projected(projection, g))


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
        if name == "countsketch":  # whole numbers below 18: some are the same by chance
            assert not any(torch.equal(first[key], other[key]) for key in first)
        else:
            assert not any((first[key] == other[key]).any() for key in first)


@RANDOM
def test_no_two_matrices_of_a_checkpoint_are_the_same(name: str) -> None:
    heads = [tuple(matrix.flatten()[:4].tolist()) for matrix in made(name).matrices(0).values()]
    assert len(set(heads)) == len(heads) >= 3


def test_an_unknown_projection_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        BuildError, match="projection 'pac'; expected one of identity, gaussian, rank1, countsketch, pca"
    ):
        make_projection(LAYOUT, {"name": "pac"})
    with pytest.raises(BuildError, match="unknown projection None; expected one of"):
        make_projection(LAYOUT, {})


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"name": "rank1", "number": 24}, r"projection 'rank1' does not take the parameters \['number'\]"),
        ({"name": "rank1"}, r"projection 'rank1' does not take the parameters \[\]"),
        ({"name": "identity", "seed": 1}, r"projection 'identity' does not take the parameters \['seed'\]"),
        ({"name": "pca", "bases": 3}, r"projection 'pca' does not take the parameters \['bases'\]"),
        ({"name": "pca", "numbers": 3}, r"projection 'pca' does not take the parameters \['numbers'\]"),
        ({"name": "pca", "bytes": "512"}, "projection 'pca': bytes = '512'; expected a whole number"),
        ({"name": "rank1", "numbers": True}, "projection 'rank1': numbers = True; expected a whole number"),
        ({"name": "gaussian", "numbers": 8, "sed": 1}, r"'gaussian' does not take the parameters \['numbers', 'sed'\]"),
    ],
)
def test_unknown_or_missing_parameters_are_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(BuildError, match=text):
        make_projection(LAYOUT, parameters)


def test_name_and_numbers_are_known_without_a_layout() -> None:
    assert named({"name": "pca", "bytes": 512}) == ("pca", {"bytes": 512})
    assert named({"name": "identity"}) == ("identity", {})


def test_the_given_parameters_are_not_changed() -> None:
    parameters = {"name": "rank1", "numbers": 24}
    make_projection(LAYOUT, parameters)
    assert parameters == {"name": "rank1", "numbers": 24}
