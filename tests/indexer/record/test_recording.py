"""The files of a recording and the order in which they are written."""

from pathlib import Path

import numpy as np
import orjson
import pytest
import safetensors
import torch

from indexer.checkpoints.folder import open_run
from indexer.checkpoints.formats.listing import PENDING
from indexer.checkpoints.history import history
from indexer.checkpoints.weights import read_weights
from indexer.errors import CheckpointError, RecordError
from indexer.record.recording import Recording
from indexer.record.resume import Recorded, nothing_at
from indexer.record.steps import Steps
from indexer.record.subject import State

STATE = State({"w": torch.arange(3.0)}, optimizer={"state": {0: torch.ones(2)}}, epoch=0.5)
ABOUT = {"optimizer": {"name": "sgd"}, "steps_per_epoch": 4, "parameter_groups": [["w"]]}


def steps(after: int = 0, count: int = 2, rate: float = 0.1) -> Steps:
    made = Steps(after)
    for number in range(count):
        made.made([rate], 1.0)
        made.loss(float(number))
    return made


def test_a_checkpoint_and_its_entry(tmp_path: Path) -> None:
    Recording(tmp_path, nothing_at(0)).add("one", STATE, steps(), ABOUT)
    document = orjson.loads((tmp_path / "checkpoints.json").read_bytes())
    assert document["checkpoints"] == [
        {
            **{"file": "one.safetensors", "learning_rate": 0.1, "step": 2, "epoch": 0.5, "train_loss": 0.5},
            **{"optimizer_state": "one.optimizer.pt", "history": "one.history.safetensors"},
        }
    ]
    assert {key: document[key] for key in ABOUT} == ABOUT
    assert read_weights(tmp_path / "one.safetensors")["w"].tolist() == [0, 1, 2]
    assert torch.load(tmp_path / "one.optimizer.pt", weights_only=True)["state"][0].tolist() == [1, 1]
    assert open_run(tmp_path).history.losses.tolist() == [0, 1]


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    """An optimizer without a rate, a loss that is not finite, an epoch of unknown length."""
    made = Steps(0)
    made.made([np.nan], 1.0)
    made.loss(np.inf)
    Recording(tmp_path, nothing_at(0)).add("one", State({}, None, None), made, {})
    entry = {"file": "one.safetensors", "step": 1, "history": "one.history.safetensors"}
    assert orjson.loads((tmp_path / "checkpoints.json").read_bytes()) == {"checkpoints": [entry]}


@pytest.mark.parametrize("dies_at", ["safetensors", "optimizer.pt", "history.safetensors", "checkpoints.json"])
def test_a_recording_that_dies_while_it_saves_has_the_listing_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    files = Recording(tmp_path, nothing_at(0))
    files.add("one", STATE, steps(), ABOUT)

    replace = Path.replace

    def full(temporary: Path, path: Path) -> Path:
        if path.name.endswith(dies_at):
            raise OSError("no space left on device")
        return replace(temporary, path)

    made = steps(2)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        files.add("two", STATE, made, ABOUT)
    assert [c.step for c in open_run(tmp_path).checkpoints] == [2]
    monkeypatch.undo()
    made.made([0.1], 1.0)
    files.add("three", STATE, made, ABOUT)
    run = open_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [2, 5]
    assert run.history.steps.tolist() == [1, 2, 3, 4, 5]


def test_weights_on_a_full_disk_are_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though safetensors has errors of its own."""

    def full(*_: object) -> None:
        raise safetensors.SafetensorError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match=r"one\.safetensors' cannot be written: no space left on device"):
        Recording(tmp_path, nothing_at(0)).add("one", STATE, steps(), ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["one.history.safetensors"]
    with pytest.raises(CheckpointError, match="is a recording that has no checkpoint yet"):
        open_run(tmp_path)


def test_a_listing_that_was_written_counts_though_something_fails_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, made = Recording(tmp_path, nothing_at(0)), steps()

    def stays(path: Path, missing_ok: bool = False) -> None:
        if path.name == PENDING:
            raise OSError("stale file handle")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="stale file handle"):
        patched.setattr(Path, "unlink", stays)
        files.add("one", STATE, made, ABOUT)
    made.made([0.1], 1.0)
    files.add("two", STATE, made, ABOUT)
    run = open_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [2, 3]
    assert run.history.steps.tolist() == [1, 2, 3]


def test_pending_steps_go_with_the_next_checkpoint(tmp_path: Path) -> None:
    files = Recording(tmp_path, nothing_at(0))
    files.keep(Steps(0).history(), ABOUT)
    assert list(tmp_path.iterdir()) == []
    files.keep(steps().history(), ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == [PENDING]
    files.add("one", STATE, steps(count=3), ABOUT)
    assert not (tmp_path / PENDING).exists()


def dropping(folder: Path, entries: list[dict[str, object]]) -> Recording:
    """A recording that is resumed after its entries, of checkpoints at the steps 2 and 4."""
    files = Recording(folder, nothing_at(0))
    files.add("two", STATE, steps(), ABOUT)
    files.add("four", STATE, steps(2), ABOUT)
    return Recording(folder, Recorded(2 if entries else 0, history([]), entries, dropped=True))


def test_a_dropped_entry_leaves_the_listing_before_its_files_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = dropping(tmp_path, [{"file": "two.safetensors", "step": 2, "history": "two.history.safetensors"}])
    before: list[object] = []
    replace = Path.replace

    def watched(temporary: Path, path: Path) -> Path:
        if path.name.startswith("four"):
            before.append([c.step for c in open_run(tmp_path).checkpoints])
            assert (tmp_path / PENDING).exists()
        return replace(temporary, path)

    monkeypatch.setattr(Path, "replace", watched)
    files.add("four", STATE, steps(2, rate=0.2), ABOUT)
    assert before == [[2], [2], [2]]
    assert [c.step for c in open_run(tmp_path).checkpoints] == [2, 4]
    assert open_run(tmp_path).history.learning_rates.tolist() == [[0.1], [0.1], [0.2], [0.2]]


def test_where_all_entries_are_dropped_there_is_no_listing(tmp_path: Path) -> None:
    files = dropping(tmp_path, [])
    files.keep(steps(count=1).history(), ABOUT)
    assert not (tmp_path / "checkpoints.json").exists()
    files.keep(steps(count=1).history(), ABOUT)
    files.add("two", STATE, steps(), ABOUT)
    assert [c.step for c in open_run(tmp_path).checkpoints] == [2]


def test_names(tmp_path: Path) -> None:
    files = Recording(tmp_path, nothing_at(0))
    files.add("one", STATE, steps(), ABOUT)
    assert files.name(None, 71) == "step-000071"
    assert files.name("one", 2) == "one"
    with pytest.raises(
        RecordError, match=r"checkpoint at step 4 is called 'one', as is the one at step 2; give each a"
    ):
        files.name("one", 4)
    for wanted in ("runs/one", ".new-one"):
        with pytest.raises(RecordError, match=f"is called '{wanted}'; expected a file name without folder and suffix"):
            files.name(wanted, 4)
    for wanted in ("one.history", "one.optimizer", PENDING.removesuffix(".safetensors")):
        with pytest.raises(RecordError, match=r"expected a name that does not end in '\.history' or '\.optimizer', as"):
            files.name(wanted, 4)


def test_a_folder_is_made_and_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    files = Recording(tmp_path / "runs" / "new", nothing_at(0))
    files.prepare()
    assert list((tmp_path / "runs" / "new").iterdir()) == []
    (files.folder / ".new-a1b2").touch()
    (files.folder / ".new-folder").mkdir()
    (files.folder / "notes.txt").touch()
    files.prepare()
    assert sorted(path.name for path in files.folder.iterdir()) == [".new-folder", "notes.txt"]


def test_steps_of_a_course_that_begins_anew_are_not_those_of_the_one_before(tmp_path: Path) -> None:
    Recording(tmp_path, nothing_at(0)).keep(steps().history(), ABOUT)
    Recording(tmp_path, Recorded(0, steps().history())).prepare()
    assert (tmp_path / PENDING).exists()
    Recording(tmp_path, nothing_at(0)).prepare()
    assert not (tmp_path / PENDING).exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expected = r"file/run': expected a folder that the recording can be written to, found NotADirectoryError .* choose"
    with pytest.raises(RecordError, match=expected):
        Recording(tmp_path / "file" / "run", nothing_at(0)).prepare()
