"""Places bring inputs and deltas to the front, whatever axis held the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from indexer.gradients.place import Batched, Shared, batched_places, shared_places


def arranged(place: Batched, examples: Tensor) -> Tensor:
    """Examples [b, before, after, *rest] as a call would hold them; the definition, element by element."""
    b, before, after = examples.shape[:3]
    rows = torch.stack([examples[i, j, k] for j in range(before) for i in range(b) for k in range(after)])
    return rows.movedim(0, place.axis)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    b=st.integers(2, 4),
    before=st.integers(1, 3),
    after=st.integers(1, 3),
    axis=st.integers(0, 2),
    rest=st.lists(st.integers(1, 3), min_size=2, max_size=2),
)
def test_every_arrangement_is_brought_to_the_front_and_found_again(
    b: int, before: int, after: int, axis: int, rest: list[int]
) -> None:
    place = Batched(axis, before, after)
    examples = torch.randn(b, before, after, *rest)
    held = arranged(place, examples)
    front = place.of_input(held, b)
    assert torch.equal(front.reshape(examples.shape), examples)
    assert front.ndim == (3 if place.times == 1 else 4)
    assert torch.equal(place.of_delta(held, b), front)
    assert place.spread(held, b) is held
    unit = (*held.shape[:axis], place.times, *held.shape[axis + 1 :])
    assert place.shape(unit, b) == held.shape
    fewer = arranged(place, examples[:-1])
    assert place in batched_places(tuple(held.shape), tuple(fewer.shape), b)


@pytest.mark.parametrize(
    ("shape", "fewer"),
    [((4, 4), (3, 3)), ((4, 2), (4, 2)), ((5, 2), (4, 2)), ((4, 2), (3, 2, 1)), ((6, 2), (3, 2))],
    ids=["two axes", "no axis", "no multiple", "other axes", "not one example fewer"],
)
def test_what_is_no_batch_has_no_place(shape: tuple[int, ...], fewer: tuple[int, ...]) -> None:
    assert batched_places(shape, fewer, 4) == []


@pytest.mark.parametrize("place", [Shared(new_axis=False), Shared(new_axis=True)])
def test_a_shared_output_is_copied_for_every_example(place: Shared) -> None:
    table = torch.randn(3, 2) if place.new_axis else torch.randn(1, 3, 2)
    copies = place.spread(table, 4)
    assert torch.equal(copies, table.reshape(1, 3, 2).repeat(4, 1, 1))
    copies.mul_(2)  # a model may write into it
    assert torch.equal(copies, 2 * place.of_input(table, 4))
    assert place.of_delta(copies, 4) is copies
    assert place.shape(tuple(table.shape), 4) == table.shape


def test_only_an_output_with_a_first_axis_of_one_can_be_widened() -> None:
    assert shared_places((1, 3)) == [Shared(new_axis=False), Shared(new_axis=True)]
    assert shared_places((3, 1)) == shared_places(()) == [Shared(new_axis=True)]
