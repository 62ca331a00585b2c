"""Cursors: places come back exactly, from the listing they came from and no other."""

import base64
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from indexer.errors import QuestionError
from service.cursors import (
    Listing,
    read_row_cursor,
    read_value_cursor,
    row_cursor,
    value_cursor,
)
from service.questions import ExampleListing

PROPERTY = hypothesis_settings(max_examples=100, deadline=None, derandomize=True)
NOT_OURS = "cursor: expected the next_cursor of an earlier page, or none for the first page"
ANOTHER = (
    "cursor: it belongs to a listing with another split, order, label or checkpoint; expected the arguments "
    "that it came with, or no cursor for the first page"
)
ROWS = Listing("test", "row", None, None)
VALUES = Listing("train", "self_influence", "dog", 2)
LISTINGS = [
    ROWS,
    replace(ROWS, split="train"),
    replace(ROWS, label=""),
    replace(ROWS, label="null"),
    VALUES,
    replace(VALUES, checkpoint=None),
    replace(VALUES, checkpoint=1),
    replace(VALUES, label=None),
    replace(VALUES, label='dog", "2'),
]
positions = st.integers(0, 2**63 - 1)


def with_place(listing: Listing, place: str) -> str:
    """Return a cursor whose listing is right and whose place is what it is told to be."""
    name = base64.urlsafe_b64decode(row_cursor(listing, 0)).decode().partition(":")[0]
    return base64.urlsafe_b64encode(f"{name}:{place}".encode()).decode()


@PROPERTY
@given(positions)
def test_a_number_of_rows_comes_back(start: int) -> None:
    assert read_row_cursor(ROWS, row_cursor(ROWS, start)) == start


@PROPERTY
@given(st.floats(allow_nan=False), positions)
def test_a_value_comes_back_bit_for_bit_and_fits_in_a_request(value: float, position: int) -> None:
    cursor = value_cursor(VALUES, (value, position))
    found = read_value_cursor(VALUES, cursor)
    assert found is not None
    assert (found[0].hex(), found[1]) == (value.hex(), position)
    assert ExampleListing(cursor=cursor).cursor == cursor


@pytest.mark.parametrize("edge", [5e-324, 1.7976931348623157e308, -2.2250738585072014e-308, float("inf"), -0.0])
def test_extreme_values_come_back(edge: float) -> None:
    found = read_value_cursor(VALUES, value_cursor(VALUES, (edge, 2**63 - 1)))
    assert found is not None and found[0].hex() == edge.hex()


def test_without_a_cursor_a_listing_begins_at_its_start() -> None:
    assert read_row_cursor(ROWS, None) == 0
    assert read_value_cursor(VALUES, None) is None


@pytest.mark.parametrize("own", LISTINGS)
@pytest.mark.parametrize("other", LISTINGS)
def test_a_cursor_is_good_for_its_own_listing_only(own: Listing, other: Listing) -> None:
    rows, values = row_cursor(own, 5), value_cursor(own, (0.5, 7))
    if own == other:
        assert (read_row_cursor(other, rows), read_value_cursor(other, values)) == (5, (0.5, 7))
        return
    with pytest.raises(QuestionError, match=ANOTHER):
        read_row_cursor(other, rows)
    with pytest.raises(QuestionError, match=ANOTHER):
        read_value_cursor(other, values)


def test_a_cursor_does_not_repeat_what_is_listed() -> None:
    cursor = value_cursor(replace(VALUES, label="secret"), (0.5, 7))
    assert b"secret" not in base64.urlsafe_b64decode(cursor)
    assert set(cursor) <= set(string.ascii_letters + string.digits + "-_=")


@pytest.mark.parametrize("place", ["", "-1", "1.5", "\u0663", "0x1", " 1", "1 ", str(2**63), "9" * 60, "1:0.5"])
def test_a_place_that_is_no_number_of_rows_is_refused(place: str) -> None:
    with pytest.raises(QuestionError, match=NOT_OURS):
        read_row_cursor(ROWS, with_place(ROWS, place))


@pytest.mark.parametrize(
    "place",
    ["", "7", "7:", ":0.5", "7:nan", "7:0.50", "7:1e0", "7: 0.5", "7:1_0.0", "7:0.5:1", "-7:0.5", f"{2**63}:0.5"],
)
def test_a_place_that_is_no_value_and_position_is_refused(place: str) -> None:
    with pytest.raises(QuestionError, match=NOT_OURS):
        read_value_cursor(VALUES, with_place(VALUES, place))


@PROPERTY
@given(st.text(max_size=100))
def test_any_other_text_is_refused(text: str) -> None:
    for read, listing in ((read_row_cursor, ROWS), (read_value_cursor, VALUES)):
        with pytest.raises(QuestionError, match="cursor: "):
            read(listing, text)
