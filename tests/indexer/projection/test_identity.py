"""identity is the gradient itself: exact inner products, block after block."""

import torch

from indexer.projection.identity import Identity
from indexer.projection.projections import project
from tests.indexer.projection.small_network import PAIRS, small_gradients
from tests.reference import relative_error

DOUBLE = 1e-10  # float64: rounding of sums over a few hundred terms is below 1e-14


def test_inner_products_are_exact() -> None:
    small = small_gradients()
    vectors = project(Identity(small.layout), small.gradients, {})
    assert relative_error((vectors[:PAIRS] * vectors[PAIRS:]).sum(1), small.exact) < DOUBLE


def test_blocks_follow_each_other_in_the_order_of_the_layout() -> None:
    small = small_gradients()
    projection = Identity(small.layout)
    shuffled = dict(reversed(small.gradients.items()))
    vectors = project(projection, shuffled, {})
    assert vectors.shape == (2 * PAIRS, projection.width)
    start = 0
    for block in small.layout.blocks:
        assert torch.equal(vectors[:, start : start + block.size], small.gradients[block.name].dense().flatten(1))
        start += block.size
    assert start == projection.width


def test_no_matrix_is_needed() -> None:
    assert Identity(small_gradients().layout).matrices(checkpoint=3) == {}
