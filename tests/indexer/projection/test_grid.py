"""Entries and coordinates of a grid are each other's inverse, against counting them one by one."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from indexer.projection.grid import Box, Places, box_of, entries_of, places_of

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
BOXES = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=4)


def counted(box: Box) -> list[tuple[int, int, int]]:
    """(block, left, right) of every entry, in order."""
    return [
        (block, left, right) for block, (r1, r2) in enumerate(box.values()) for left in range(r1) for right in range(r2)
    ]


def box_from(sides: list[tuple[int, int]]) -> Box:
    return {f"{i}": size for i, size in enumerate(sides)}


def triples(places: Places) -> list[tuple[int, int, int]]:
    return list(zip(places.block.tolist(), places.left.tolist(), places.right.tolist(), strict=True))


def some(count: int) -> Tensor:
    """Entries in any order, some twice."""
    return torch.randint(count, (6,))


@PROPERTY
@given(sides=BOXES)
def test_places_of_all_entries_are_those_that_counting_finds(sides: list[tuple[int, int]]) -> None:
    box = box_from(sides)
    expected = counted(box)
    places = places_of(torch.arange(len(expected)), box)
    assert places.names == tuple(box)
    assert triples(places) == expected
    assert entries_of(places, box).tolist() == list(range(len(expected)))


@PROPERTY
@given(sides=BOXES)
def test_places_keep_their_order_and_move_into_a_smaller_grid(sides: list[tuple[int, int]]) -> None:
    box = box_from(sides)
    places = places_of(some(len(counted(box))), box)
    smaller = box_of([places])
    assert all(r1 <= box[name][0] and r2 <= box[name][1] for name, (r1, r2) in smaller.items())
    moved = entries_of(places, smaller)
    assert [counted(smaller)[entry] for entry in moved.tolist()] == triples(places)


@PROPERTY
@given(sides=BOXES)
def test_the_smallest_box_of_several_has_the_places_of_all_and_no_more(sides: list[tuple[int, int]]) -> None:
    box = box_from(sides)
    both = [places_of(some(len(counted(box))), box) for _ in range(2)]
    everything = [triple for places in both for triple in triples(places)]
    for number, (name, found) in enumerate(box_of(both).items()):
        here = [(left, right) for block, left, right in everything if block == number]
        assert name == f"{number}"
        assert found == (
            max((left for left, _ in here), default=0) + 1,
            max((right for _, right in here), default=0) + 1,
        )


def test_a_block_without_places_keeps_one_vector_a_side() -> None:
    places = places_of(torch.tensor([7]), {"a": (2, 3), "b": (1, 2), "c": (4, 4)})
    assert box_of([places]) == {"a": (1, 1), "b": (1, 2), "c": (1, 1)}


def test_no_places_are_a_box_of_ones() -> None:
    nothing = places_of(torch.zeros(0, dtype=torch.int64), {"a": (2, 3)})
    assert box_of([nothing]) == {"a": (1, 1)}
    assert entries_of(nothing, {"a": (1, 1)}).tolist() == []
