"""pca is the linear map that its bases describe, at one checkpoint as at all; bases of another model are refused."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from indexer.errors import BuildError
from indexer.gradients.block import DenseGradient, FactorGradient
from indexer.gradients.capture import Gradients
from indexer.gradients.layout import Block, Layout
from indexer.gradients.uses import LinearUse
from indexer.projection.pca import DEFAULT_BYTES, DEFAULT_SAMPLE, KEPT, POOL, TURN, Pca, check_pca
from indexer.projection.projections import describe, make_projection, project
from tests.indexer.projection.random_bases import DIRECTIONS, TAIL, random_bases
from tests.indexer.projection.small_network import SmallGradients, in_double, small_gradients
from tests.reference import relative_error

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14
SINGLE = 1e-5  # float32: the same sums round at 1e-7 a term
FACTORS = [(10, 12), (4, 30), (6, 1)]
LAYOUT = Layout(tuple(Block(f"{i}", (f"{i}",), shape, "factors", "linear") for i, shape in enumerate(FACTORS)), ())


@pytest.fixture(scope="module")
def small() -> SmallGradients:
    return small_gradients()


def number_by_number(layout: Layout, gradient: Mapping[str, Tensor], bases: Mapping[str, Tensor]) -> list[float]:
    """The definition, for one example: every coordinate u' g v of every block, those of the pool, the head turned."""
    grid = []
    for block in layout.blocks:
        for u in bases[f"{block.name}/left"].double():
            for v in bases[f"{block.name}/right"].double():
                grid.append(float(u @ gradient[block.name].double() @ v))
    pool = [grid[entry] for entry in bases[POOL].tolist()]
    h = bases[TURN].shape[1]
    turned = [sum(weight * entry for weight, entry in zip(row, pool[:h], strict=True)) for row in bases[TURN].tolist()]
    return turned + [entry * kept for entry, kept in zip(pool[h:], bases[KEPT].tolist(), strict=True)]


def test_it_is_what_its_bases_describe_number_by_number(small: SmallGradients) -> None:
    projection = Pca(small.layout, random_bases(small.layout, 2))
    few: Gradients = {name: DenseGradient(gradient.dense()[:3]) for name, gradient in small.gradients.items()}
    for checkpoint in range(2):
        found = project(projection, few, in_double(projection.matrices(checkpoint)))
        expected = [
            number_by_number(
                small.layout, {name: g.dense()[i] for name, g in few.items()}, projection.bases[checkpoint]
            )
            for i in range(3)
        ]
        assert found.shape == (3, projection.width) == (3, DIRECTIONS + TAIL)
        assert relative_error(found, torch.tensor(expected, dtype=torch.float64)) < DOUBLE


def test_factors_and_formed_gradients_give_the_same(small: SmallGradients) -> None:
    projection = Pca(small.layout, random_bases(small.layout, 1))
    matrices = in_double(projection.matrices(0))
    formed: Gradients = {name: DenseGradient(gradient.dense()) for name, gradient in small.gradients.items()}
    assert (
        relative_error(project(projection, small.gradients, matrices), project(projection, formed, matrices)) < DOUBLE
    )


def test_coordinates_that_are_padding_are_zero(small: SmallGradients) -> None:
    projection = Pca(small.layout, random_bases(small.layout, 1))
    vectors = project(projection, small.gradients, in_double(projection.matrices(0)))
    carried = vectors.count_nonzero(0) > 0
    assert [j for j, some in enumerate(carried.tolist()) if not some] == [DIRECTIONS - 1, DIRECTIONS + TAIL - 1]


def test_a_tail_or_a_head_may_be_missing(small: SmallGradients) -> None:
    [bases] = random_bases(small.layout, 1)
    h = bases[TURN].shape[1]
    whole = Pca(small.layout, [bases])
    no_tail = Pca(small.layout, [bases | {POOL: bases[POOL][:h], KEPT: bases[KEPT][:0]}])
    no_head = Pca(small.layout, [bases | {POOL: bases[POOL][h:], TURN: torch.zeros(0, 0)}])
    parts = [project(of, small.gradients, in_double(of.matrices(0))) for of in (no_tail, no_head)]
    assert [of.width for of in (no_tail, no_head)] == [DIRECTIONS, TAIL]
    expected = project(whole, small.gradients, in_double(whole.matrices(0)))
    assert relative_error(torch.cat(parts, dim=1), expected) < DOUBLE


def test_all_checkpoints_at_once_are_one_after_the_other() -> None:
    projection = Pca(LAYOUT, random_bases(LAYOUT, 3))
    deltas = [torch.randn(3, 2, 5, m) for m, _ in FACTORS]
    inputs = [torch.randn(3, 2, 5, n - 1) for _, n in FACTORS]
    drawn = [projection.matrices(i) for i in range(3)]
    stacked = {name: torch.stack([matrices[name] for matrices in drawn]) for name in drawn[0]}

    def one(deltas: list[Tensor], inputs: list[Tensor], matrices: dict[str, Tensor]) -> Tensor:
        uses = [LinearUse(delta, x, True) for delta, x in zip(deltas, inputs, strict=True)]
        return project(projection, {f"{i}": FactorGradient((use,)) for i, use in enumerate(uses)}, matrices)

    expected = torch.stack([one([d[i] for d in deltas], [x[i] for x in inputs], drawn[i]) for i in range(3)])
    assert relative_error(vmap(one)(deltas, inputs, stacked), expected) < SINGLE


def test_it_is_made_again_of_its_bases_and_what_it_says_of_itself() -> None:
    bases = random_bases(LAYOUT, 2)
    projection = Pca(LAYOUT, bases, bytes=100, seed=3)
    assert describe(projection) == {"name": "pca", "bytes": 100, "sample": DEFAULT_SAMPLE, "seed": 3}
    assert make_projection(LAYOUT, describe(projection), bases) == projection
    assert describe(make_projection(LAYOUT, {"name": "pca"}, bases))["bytes"] == DEFAULT_BYTES


def test_what_it_hands_out_is_its_own_to_change() -> None:
    projection = Pca(LAYOUT, random_bases(LAYOUT, 1))
    projection.matrices(0).clear()
    assert POOL in projection.matrices(0)


@pytest.mark.parametrize("lacking", ["0/left", "2/right", POOL, TURN, KEPT])
def test_bases_that_lack_a_tensor_at_a_checkpoint_are_refused(lacking: str) -> None:
    bases = random_bases(LAYOUT, 2)
    del bases[1][lacking]
    with pytest.raises(BuildError, match="pca: expected the fitted bases of every parameter block at every checkpoint"):
        Pca(LAYOUT, bases)


def test_no_bases_and_bases_of_more_are_refused() -> None:
    for bases in ([], [random_bases(LAYOUT, 1)[0] | {"3/left": torch.zeros(1, 1)}]):
        with pytest.raises(BuildError, match="pca: expected the fitted bases of every parameter block"):
            Pca(LAYOUT, bases)
    with pytest.raises(BuildError, match="pca: expected the fitted bases of every parameter block"):
        make_projection(LAYOUT, {"name": "pca"})


def test_bases_of_a_model_of_other_sizes_are_refused() -> None:
    bases = random_bases(LAYOUT, 2)
    bases[1]["1/right"] = bases[1]["1/right"][:, :-1]
    text = "the basis '1/right' of checkpoint 2 is for 29 numbers, but the model has 30 there; rebuild the index"
    with pytest.raises(BuildError, match=text):
        Pca(LAYOUT, bases)


def test_numbers_that_make_no_projection_are_refused() -> None:
    with pytest.raises(BuildError, match="pca with bytes=15: expected at least 16 bytes an example"):
        Pca(LAYOUT, random_bases(LAYOUT, 1), bytes=15)
    with pytest.raises(BuildError, match="pca with sample=1: expected at least 2 training examples to fit bases on"):
        check_pca(16, 1)
    check_pca(16, 2)
