"""What a recorder does when something goes wrong: the disk, the optimizer, the folder."""

from pathlib import Path

import pytest
import torch

from indexer import CheckpointRecorder
from indexer.checkpoints.folder import open_run
from indexer.errors import RecordError
from tests.indexer.record.training import network, two_groups


def test_the_folder_is_tried_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    net = network()
    with pytest.raises(RecordError, match=r"expected a folder that the recording can be written to"):
        CheckpointRecorder(tmp_path / "file" / "run", net, two_groups(net), every=1)


def test_an_error_of_the_disk_can_be_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next checkpoint has the steps of the one that failed."""
    net = network()
    recorder = CheckpointRecorder(tmp_path, net, (optimizer := two_groups(net)), every=2)
    for number in range(1, 7):
        optimizer.step()
        if number != 4:
            recorder.record(0.5)
            continue
        with monkeypatch.context() as full, pytest.raises(OSError, match="no space"):
            full.setattr("indexer.record.recording.write_listing", no_space)
            recorder.record(0.5)
    run = open_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [2, 5, 6]
    assert run.history.steps.tolist() == [1, 2, 3, 4, 5, 6]


def no_space(*_: object) -> None:
    raise OSError("no space left on device")


def test_close_leaves_the_optimizer_though_it_cannot_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    recorder = CheckpointRecorder(tmp_path, net, (optimizer := two_groups(net)), every=2)
    optimizer.step()
    monkeypatch.setattr("indexer.record.recording.write_listing", no_space)
    with pytest.raises(OSError, match="no space"):
        recorder.close()
    optimizer.step()
    assert recorder.step == 1
    with pytest.raises(RecordError, match="is closed"):
        recorder.record(1.0)


NO_STEP = r"losses were recorded and the optimizer made no step; is this the optimizer that trains\? Const"


def test_an_optimizer_that_does_not_train_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end, or when there are more losses than any step has batches."""
    net = network()
    recorder = CheckpointRecorder(tmp_path, net, two_groups(net), every=2)
    other = two_groups(net)
    for _ in range(10):
        other.step()
        recorder.record(0.5)
    with pytest.raises(RecordError, match=f"^10 {NO_STEP}"):
        recorder.close()
    recorder.close()
    recorder = CheckpointRecorder(tmp_path, net, other, every=2)
    monkeypatch.setattr("indexer.record.recorder._LOSSES_WITHOUT_A_STEP", 5)
    for _ in range(4):
        recorder.record(0.5)
    with pytest.raises(RecordError, match=f"^5 {NO_STEP}"):
        recorder.record(0.5)
    other.step()
    for _ in range(9):  # gradients that accumulate
        recorder.record(0.5)
    recorder.close()


def test_groups_that_come_later_are_refused(tmp_path: Path) -> None:
    net = network()
    optimizer = torch.optim.SGD(net[2].parameters(), lr=0.1)
    with CheckpointRecorder(tmp_path, net, optimizer, every=1):
        optimizer.step()
        optimizer.add_param_group({"params": net[0].parameters()})
        with pytest.raises(
            RecordError, match=r"had 1 parameter groups when the recording began and has 2 now; give it"
        ):
            optimizer.step()
