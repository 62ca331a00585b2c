"""Cursors: where the next page of a listing begins. Opaque to clients, and good for the listing they came from only.

base64 of ``listing:place``. listing: the first 64 bits of a hash of what is listed; place: a number of examples
already listed, or ``position:value`` of the last one, the value in the shortest digits that give the same float.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Literal

import orjson

from indexer.errors import QuestionError

_DIGITS = 16
_NOT_OURS = "cursor: expected the next_cursor of an earlier page, or none for the first page"


@dataclass(frozen=True, slots=True)
class Listing:
    """What is listed, and in which order; checkpoint: counted from 1, or None for all."""

    split: str
    order: Literal["row", "self_influence"]
    label: str | None
    checkpoint: int | None


def row_cursor(listing: Listing, start: int) -> str:
    """Return the cursor after so many examples."""
    return _encoded(listing, str(start))


def value_cursor(listing: Listing, after: tuple[float, int]) -> str:
    """Return the cursor after an example of this value and position."""
    value, position = after
    return _encoded(listing, f"{position}:{value!r}")


def read_row_cursor(listing: Listing, cursor: str | None) -> int:
    """Return how many examples are already listed: none without a cursor.

    Raises:
        QuestionError: the cursor is not one of ours, or of another listing.
    """
    return 0 if cursor is None else _whole(_place(listing, cursor))


def read_value_cursor(listing: Listing, cursor: str | None) -> tuple[float, int] | None:
    """Return the value and position of the last example that is already listed.

    Raises:
        QuestionError: the cursor is not one of ours, or of another listing.
    """
    if cursor is None:
        return None
    position, _, digits = _place(listing, cursor).partition(":")
    try:
        value = float(digits)
    except ValueError as exc:
        raise QuestionError(_NOT_OURS) from exc
    if value != value or repr(value) != digits:
        raise QuestionError(_NOT_OURS)
    return value, _whole(position)


def _encoded(listing: Listing, place: str) -> str:
    return base64.urlsafe_b64encode(f"{_name(listing)}:{place}".encode()).decode()


def _place(listing: Listing, cursor: str) -> str:
    """Return what a cursor says after the name of its listing.

    Raises:
        QuestionError: it is not one of ours, or of another listing.
    """
    try:
        name, _, place = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, UnicodeEncodeError) as exc:
        raise QuestionError(_NOT_OURS) from exc
    if len(name) != _DIGITS or not set(name) <= set("0123456789abcdef"):
        raise QuestionError(_NOT_OURS)
    if name != _name(listing):
        raise QuestionError(
            "cursor: it belongs to a listing with another split, order, label or checkpoint; expected the arguments "
            "that it came with, or no cursor for the first page"
        )
    return place


def _name(listing: Listing) -> str:
    return hashlib.sha256(orjson.dumps(listing)).hexdigest()[:_DIGITS]


def _whole(digits: str) -> int:
    """Read a number that SQL can count to.

    Raises:
        QuestionError: it is none.
    """
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20) or int(digits) >= 2**63:
        raise QuestionError(_NOT_OURS)
    return int(digits)
