"""The card as a document: it reads back as it was, and what cannot be a card is refused at its place."""

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from indexer.index.card import CardEntry, ReferenceEntry
from tests.cards import DOCUMENT, RECALL, card


def test_a_card_reads_back_as_it_was() -> None:
    assert card().model_dump(mode="json") == DOCUMENT
    assert CardEntry.model_validate_json(json.dumps(DOCUMENT)) == card()


def test_what_has_no_value_is_null() -> None:
    without = card(pearson=None, pearson_interval=None, spearman=None, spearman_interval=None, error=[])
    assert CardEntry.model_validate_json(without.model_dump_json()) == without
    assert (without.pearson, without.spearman_interval, without.error) == (None, None, ())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("queries",), 0),
        (("source",), "validation"),
        (("rows",), 0),
        (("confidence",), 1.0),
        (("proponents",), RECALL | {"recall_at_10": 1.1}),
        (("proponents",), RECALL | {"recall_at_1000": 0.5}),
        (("opponents",), RECALL | {"recall_at_100_interval": [0.5]}),
        (("pearson",), math.nan),
        (("pearson",), -1.5),
        (("spearman_interval",), [0.5, math.nan]),
        (("error",), [{"share": 0.5, "of_rms": math.inf}]),
        (("error",), [{"share": 0.5, "of_rms": -0.1}]),
        (("bytes_per_example",), 0),
        (("bytes_per_example",), math.inf),
        (("basis_bytes",), -1),
        (("comment",), "an unknown key"),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(place: tuple[str], value: Any) -> None:
    with pytest.raises(ValidationError) as exc:
        card(**{place[0]: value})
    assert exc.value.errors()[0]["loc"][:1] == place


@pytest.mark.parametrize(
    ("shares", "scores", "reason"),
    [
        ([0.0, 1.0], [0.0, 1.0, 2.0], "expected as many shares as scores, found 2 and 3"),
        ([0.0, 0.5, 0.5], [0.0, 1.0, 2.0], "expected strictly increasing shares"),
        ([0.0, 0.5, 1.0], [0.0, 2.0, 1.0], "expected scores that do not fall"),
        ([0.0, 0.5, 1.1], [0.0, 1.0, 2.0], "less than or equal to 1"),
        ([0.0, 0.5, 1.0], [0.0, 1.0, math.nan], "finite number"),
        ([0.0], [0.0], "at least 2 items"),
    ],
)
def test_a_reference_is_in_order(shares: list[float], scores: list[float], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ReferenceEntry.model_validate({"shares": shares, "scores": scores})
    assert ReferenceEntry.model_validate({"shares": [0.0, 0.5, 1.0], "scores": [1.0, 1.0, 2.0]}).scores[0] == 1.0
