"""Listings and files of checkpoints: what is kept, and every refusal by its text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from indexer.checkpoints.folder import open_run
from indexer.checkpoints.run import Checkpoint
from indexer.errors import CheckpointError

List = Callable[..., Path]


@pytest.fixture
def listed(tmp_path: Path) -> List:
    """Return a function that writes a listing of the entries, and an empty file for each name."""

    def write(*entries: Any) -> Path:
        for name in ("a.safetensors", "b.pt"):
            (tmp_path / name).touch()
        (tmp_path / "checkpoints.json").write_text(json.dumps({"checkpoints": entries}))
        return tmp_path

    return write


def test_checkpoints_come_in_the_order_of_the_listing(listed: List) -> None:
    folder = listed(
        {"file": "b.pt", "learning_rate": 0.5, "step": 71, "epoch": 1, "train_loss": 0.61, "comment": "warm-up"},
        {"file": "a.safetensors", "learning_rate": 1},
    )
    assert open_run(folder).checkpoints == (
        Checkpoint(folder / "b.pt", (0.5,), step=71, epoch=1.0, train_loss=0.61),
        Checkpoint(folder / "a.safetensors", (1.0,)),
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"files": []}', '{"checkpoints": [NaN]}', "\xff"])
def test_a_malformed_listing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "checkpoints.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r'checkpoints\.json\': expected \{"checkpoints": \[\.\.\.\]\} in JSON'):
        open_run(tmp_path)


@pytest.mark.parametrize("entries", ["[]", "{}", '"a.pt"', "null", "0"])
def test_an_empty_listing_is_refused(tmp_path: Path, entries: str) -> None:
    (tmp_path / "checkpoints.json").write_text(f'{{"checkpoints": {entries}}}')
    with pytest.raises(CheckpointError, match="expected at least one checkpoint, found none"):
        open_run(tmp_path)


@pytest.mark.parametrize("entry", ["a.safetensors", {}, {"file": 7, "learning_rate": 0.1}, None])
def test_an_entry_without_a_file_is_refused(listed: List, entry: object) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint 2 of 2 in .* names no 'file'"):
        open_run(listed({"file": "b.pt", "learning_rate": 0.1}, entry))


def test_a_missing_file_is_named(listed: List) -> None:
    expected = r"checkpoint 1 of 1 \('c\.pt'\) does not exist in .*; restore the file or take it off checkpoints\.json"
    with pytest.raises(CheckpointError, match=expected):
        open_run(listed({"file": "c.pt", "learning_rate": 0.1}))


@pytest.mark.parametrize("entry", [{}, {"learning_rate": None}, {"learning_rates": None}])
def test_a_rate_may_be_unknown(listed: List, entry: dict[str, Any]) -> None:
    [checkpoint] = open_run(listed({"file": "b.pt", **entry})).checkpoints
    assert checkpoint.learning_rates == ()


@pytest.mark.parametrize("rate", [True, "0.1", [0.1]])
def test_a_learning_rate_that_is_no_number_is_refused(listed: List, rate: object) -> None:
    with pytest.raises(CheckpointError, match=r"\('b\.pt'\) has learning_rate .*; expected a number") as exc:
        open_run(listed({"file": "b.pt", "learning_rate": rate}))
    assert repr(rate) in str(exc.value)


@pytest.mark.parametrize("rate", [float("nan"), float("inf")])
def test_a_learning_rate_that_is_not_finite_is_no_json(listed: List, rate: float) -> None:
    with pytest.raises(CheckpointError, match=r'expected \{"checkpoints": \[\.\.\.\]\} in JSON'):
        open_run(listed({"file": "b.pt", "learning_rate": rate}))


@pytest.mark.parametrize("key", ["step", "epoch", "train_loss"])
@pytest.mark.parametrize("value", ["7", False, [7]])
def test_other_numbers_must_be_numbers(listed: List, key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"\('b\.pt'\) has {key} .*; expected a number"):
        open_run(listed({"file": "b.pt", "learning_rate": 0.1, key: value}))
