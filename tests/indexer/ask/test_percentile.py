"""Percentiles in a reference sample: beside counting, at ties, and in the answers of an index with a card."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import Ask, KnownExample, Question, Task
from indexer.ask.percentile import DIGITS, percentile
from indexer.building.agreement import agreement
from indexer.index.card import ReferenceEntry
from tests.cards import card, give_card

PROPERTY = settings(max_examples=100, deadline=None, derandomize=True)
ROUNDED = 0.5 * 10**-DIGITS


@st.composite
def references(draw: st.DrawFn) -> ReferenceEntry:
    """Evenly spaced shares of small whole numbers, many of them equal."""
    scores = sorted(draw(st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=20)))
    return ReferenceEntry(shares=tuple(np.linspace(0, 1, len(scores)).tolist()), scores=tuple(scores))


@PROPERTY
@given(references(), st.floats(-4, 4))
def test_it_lies_between_what_is_below_and_what_is_not_above(reference: ReferenceEntry, score: float) -> None:
    """Of m scores i lie below: the share of the last one below is (i - 1) / (m - 1), that of the next i / (m - 1)."""
    below, steps = sum(other < score for other in reference.scores), len(reference.scores) - 1
    least, most = (100 * min(max(i, 0), steps) / steps for i in (below - 1, below))
    assert least - ROUNDED <= percentile(score, reference) <= most + ROUNDED


@PROPERTY
@given(references(), st.lists(st.floats(-4, 4), min_size=2, max_size=10))
def test_a_higher_score_has_no_lower_percentile(reference: ReferenceEntry, scores: list[float]) -> None:
    found = [percentile(score, reference) for score in sorted(scores)]
    assert found == sorted(found)


def test_equal_scores_have_the_share_below_them() -> None:
    reference = ReferenceEntry(shares=(0.0, 0.25, 0.75, 1.0), scores=(-1.0, 0.0, 0.0, 1.0))
    assert [percentile(score, reference) for score in (-1.0, 0.0, 0.5, 1.0)] == [0.0, 25.0, 87.5, 100.0]


def test_it_is_the_share_of_all_scores_below_to_the_ends_of_both_tails(rng: np.random.Generator) -> None:
    """Scores with tails as heavy as those of gradients; the reference holds 201 of 100,000."""
    scores = rng.standard_t(3, size=(50, 2000))
    shares, values = agreement(scores, scores, [None] * 50).reference
    reference, ordered = ReferenceEntry(shares=shares, scores=values), np.sort(scores.ravel())
    for place in (1, 10, 100, 10_000, 50_000, 90_000, 99_900, 99_990, 99_999):
        # neighbours in the reference are 12% apart in odds: a score is between its own, and its ranks end one higher
        rare = min(place, len(ordered) - place) / len(ordered)
        found = percentile(float(ordered[place]), reference)
        margin = 100 * (0.12 * rare + 1 / len(ordered)) + ROUNDED
        assert found == pytest.approx(100 * place / len(ordered), abs=margin), place


def test_hits_have_the_percentile_of_their_score(
    index_folder: Path, task: Task, copy_of: Callable[[Path], Path]
) -> None:
    folder, question = copy_of(index_folder), Question(KnownExample("test", "17"), k=300)
    give_card(folder, card())
    ranking = Ask.open(folder, task).query(question)
    reference = card().reference
    for hit in (*ranking.proponents, *ranking.opponents):
        expected = np.interp(hit.score, reference.scores, reference.shares)
        assert hit.percentile == pytest.approx(100 * expected, abs=ROUNDED)
    assert (ranking.proponents[0].percentile or 0) > 75 > 25 > (ranking.opponents[0].percentile or 0)


def test_hits_of_an_index_without_a_card_have_none(
    index_folder: Path, task: Task, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(index_folder)
    give_card(folder, None)
    ranking = Ask.open(folder, task).query(Question(KnownExample("test", "17"), k=3))
    assert {hit.percentile for hit in (*ranking.proponents, *ranking.opponents)} == {None}
