"""What training scripts wrap weights in."""

from typing import Any

import pytest
import torch

from indexer.checkpoints.wrapped import MODEL_KEYS, averages, same_state, unwrapped

STATE = {"weight": torch.ones(2), "bias": torch.zeros(1)}


def test_a_bare_state_is_itself() -> None:
    assert unwrapped(STATE) is STATE


@pytest.mark.parametrize("key", MODEL_KEYS)
def test_a_state_is_found_under_the_usual_keys(key: str) -> None:
    assert unwrapped({"epoch": 3, key: STATE, "optimizer": {"state": {}}}) is STATE


def test_the_first_key_that_holds_a_state_counts() -> None:
    assert unwrapped({"state_dict": {"a": 1}, "model": STATE}) is STATE


@pytest.mark.parametrize(
    "document",
    [
        *(None, 7, [STATE], torch.ones(2), {}, {"lr": 0.1}, {1: torch.ones(1)}),
        *({"model": {}}, {"model": "m"}, {"network": STATE}),
    ],
)  # fmt: skip
def test_other_documents_hold_none(document: Any) -> None:
    assert unwrapped(document) is None


def test_states_are_the_same_by_names_and_values() -> None:
    assert same_state(STATE, {name: value.clone() for name, value in STATE.items()})
    assert not same_state(STATE, STATE | {"bias": torch.ones(1)})
    assert not same_state(STATE, {"weight": STATE["weight"]})


def test_no_averages_need_no_words() -> None:
    assert averages([], "AveragedModel") == ()
