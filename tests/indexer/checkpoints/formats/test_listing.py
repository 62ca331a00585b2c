"""Listings and files of checkpoints: what is kept, and every refusal by its text."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from indexer.checkpoints.folder import open_run
from indexer.checkpoints.formats.listing import write_history, write_listing
from indexer.checkpoints.history import SERIES, History, from_series, history
from indexer.checkpoints.optimizer import Optimizer
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


NOTED = history([1, 2, 3], [[0.3, 0.03], [0.2, 0.02], [0.1, 0.01]], [2.0, None, math.inf], [1.0, 2.0, None])


def series(found: History) -> dict[str, np.ndarray]:
    return {name: getattr(found, name) for name in SERIES}


def two_groups(folder: Path, **about: object) -> Path:
    """A run of two checkpoints with the steps of each, as the recorder writes it."""
    entries = []
    for name, first, last in (("a", 0, 2), ("b", 2, 3)):
        (folder / f"{name}.pt").touch()
        part = from_series({key: values[first:last] for key, values in series(NOTED).items()})
        write_history(folder / f"{name}.history", part)
        entries.append({"file": f"{name}.pt", "step": last, "learning_rates": NOTED.learning_rates[last - 1].tolist()})
        entries[-1]["history"] = f"{name}.history"
    groups = [["head.weight"], ["body.weight", "body.bias"]]
    write_listing(folder, entries, {"steps_per_epoch": 3, "parameter_groups": groups, **about})
    return folder


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    run = open_run(two_groups(tmp_path, optimizer={"name": "sgd", "momentum": 0.9}))
    for name, values in series(run.history).items():
        np.testing.assert_array_equal(values, series(NOTED)[name])
    assert [checkpoint.learning_rates for checkpoint in run.checkpoints] == [(0.2, 0.02), (0.1, 0.01)]
    assert [group.names for group in run.groups] == [("head.weight",), ("body.weight", "body.bias")]
    assert (run.steps_per_epoch, run.optimizer) == (3.0, Optimizer("sgd", {"momentum": 0.9}))


def test_without_a_history_the_entries_are_one(listed: List) -> None:
    folder = listed(
        {"file": "b.pt", "learning_rate": 0.5, "step": 10, "train_loss": 2.0},
        {"file": "a.safetensors", "learning_rate": 0.1, "step": 20},
    )
    found = open_run(folder).history
    assert found.steps.tolist() == [10, 20] and found.learning_rates.tolist() == [[0.5], [0.1]]
    assert found.losses[0] == 2.0 and math.isnan(found.losses[1])


def test_entries_without_growing_steps_are_no_history(listed: List) -> None:
    assert len(open_run(listed({"file": "b.pt", "step": 2}, {"file": "a.safetensors", "step": 2})).history.steps) == 0


def refused(folder: Path, expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected):
        open_run(folder)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([["a"], ["a"]], "expected parameter_groups as lists of parameter names, each name once, found"),
        ([[7]], "expected parameter_groups as lists of parameter names"),
        ("a", "expected parameter_groups as lists of parameter names"),
        ([["a"]], r"\('a\.pt'\) has 2 learning_rates and checkpoints\.json 1 parameter_groups; expected the names"),
        (None, r"\('a\.pt'\) has 2 learning_rates and checkpoints\.json 0 parameter_groups"),
    ],
)
def test_groups_that_do_not_name_the_rates_are_refused(tmp_path: Path, groups: object, expected: str) -> None:
    refused(two_groups(tmp_path, parameter_groups=groups), expected)


@pytest.mark.parametrize("rates", [[], 0.1, [0.1, None], [0.1, "0.1"]])
def test_rates_that_are_no_list_of_numbers_are_refused(listed: List, rates: object) -> None:
    refused(listed({"file": "b.pt", "learning_rates": rates}), r"\('b\.pt'\) has learning_rate")


@pytest.mark.parametrize("steps", [0, -1, "3", True])
def test_steps_an_epoch_that_are_no_positive_number_are_refused(tmp_path: Path, steps: object) -> None:
    refused(two_groups(tmp_path, steps_per_epoch=steps), r"has steps_per_epoch .*; expected a positive number")


def test_histories_that_overlap_are_refused(tmp_path: Path) -> None:
    two_groups(tmp_path)
    shutil.copy(tmp_path / "a.history", tmp_path / "b.history")
    refused(tmp_path, r"the histories of its checkpoints do not follow each other")


def test_histories_of_other_groups_are_refused(tmp_path: Path) -> None:
    two_groups(tmp_path)
    write_history(tmp_path / "b.history", history([3], [[0.1]]))
    refused(tmp_path, r"have the rates of 1 and of 2 parameter groups; expected one number of groups in a run")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no safetensors"),
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: safetensors.numpy.save_file({"steps": np.array([1])}, path),
        lambda path: safetensors.numpy.save_file(series(NOTED) | {"losses": np.zeros(2)}, path),
        lambda path: safetensors.numpy.save_file(series(NOTED) | {"steps": np.zeros(3)}, path),
    ],
)
def test_a_file_that_is_no_history_is_refused(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(two_groups(tmp_path) / "a.history")
    refused(tmp_path, r"1 of 2 \('a\.pt'\): history 'a\.history' is not as checkpoints\.json keeps it .*; take its")


def test_a_history_that_is_not_there_is_named(tmp_path: Path) -> None:
    (two_groups(tmp_path) / "a.history").unlink()
    refused(tmp_path, r"\('a\.pt'\) has history 'a\.history', which does not exist in .*; restore the file or take the")
