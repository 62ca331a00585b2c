"""Questions and answers are values: equal by content, never changed, with defaults that ask for the common thing."""

from dataclasses import FrozenInstanceError

import pytest

from indexer import GivenExample, Hit, KnownExample, Question


def test_a_question_asks_for_ten_reasons_of_the_loss_at_the_predicted_label() -> None:
    question = Question(KnownExample("test", "17"))
    assert (question.label, question.target, question.k, question.explain) == (None, None, 10, "loss")


def test_values_are_equal_by_content() -> None:
    assert Question(KnownExample("test", "17"), k=3) == Question(KnownExample("test", "17"), k=3)
    assert KnownExample("test", "17") != KnownExample("train", "17")
    assert GivenExample({"data": "AAAA"}) == GivenExample({"data": "AAAA"})


def test_values_cannot_be_changed() -> None:
    hit = Hit(1, "train", "17", "5", 0.5, (0.25, 0.25), None)
    with pytest.raises(FrozenInstanceError):
        hit.score = 1.0  # type: ignore[misc]  # the refusal is what is tested
