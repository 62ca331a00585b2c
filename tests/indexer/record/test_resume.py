"""What a recording holds at a step, and where it cannot be resumed."""

from pathlib import Path
from typing import Any

import pytest

from indexer.checkpoints.formats.listing import write_history, write_listing
from indexer.checkpoints.history import History, history
from indexer.errors import RecordError
from indexer.record.resume import PENDING, nothing_at, resume_at


def steps(first: int, last: int) -> History:
    """A history whose losses are its step numbers."""
    numbers = range(first, last + 1)
    return history(
        numbers, [[0.1 * number] for number in numbers], [float(number) for number in numbers], [1.0] * len(numbers)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints at steps 3 and 6, and steps noted up to 8."""
    for first, last in ((1, 3), (4, 6)):
        (tmp_path / f"{last}.safetensors").touch()
        write_history(tmp_path / f"{last}.history.safetensors", steps(first, last))
    write_history(tmp_path / PENDING, steps(7, 8))
    return listed(tmp_path, {}, {})


def listed(folder: Path, *changes: dict[str, Any]) -> Path:
    entries = [
        {"file": f"{at}.safetensors", "step": at, "history": f"{at}.history.safetensors", **change}
        for at, change in zip((3, 6), changes, strict=True)
    ]
    write_listing(folder, entries, {})
    return folder


@pytest.mark.parametrize(
    ("step", "kept", "since", "dropped"),
    [
        (1, [], [1], True),
        (3, [3], [], True),
        (5, [3], [4, 5], True),
        (6, [3, 6], [], False),
        (7, [3, 6], [7], False),
        (8, [3, 6], [7, 8], False),
    ],
)
def test_checkpoints_up_to_the_step_and_the_steps_since(
    folder: Path, step: int, kept: list[int], since: list[int], dropped: bool
) -> None:
    found = resume_at(folder, step, groups=1)
    assert [entry["step"] for entry in found.entries] == kept
    assert found.after == (kept[-1] if kept else 0)
    assert found.since.steps.tolist() == found.since.losses.tolist() == since
    assert found.dropped is dropped


def test_entries_are_kept_as_they_are_written(folder: Path) -> None:
    listed(folder, {"comment": "warm-up"}, {})
    assert resume_at(folder, 3, groups=1).entries == [
        {"file": "3.safetensors", "step": 3, "history": "3.history.safetensors", "comment": "warm-up"}
    ]


def test_pending_steps_that_are_in_the_listing_already_are_not_there_twice(folder: Path) -> None:
    """A run may die between writing its listing and removing them."""
    write_history(folder / PENDING, steps(4, 8))
    assert resume_at(folder, 8, groups=1).since.steps.tolist() == [7, 8]
    assert resume_at(folder, 5, groups=1).since.steps.tolist() == [4, 5]


def test_before_the_first_checkpoint_there_are_pending_steps_alone(tmp_path: Path) -> None:
    write_history(tmp_path / PENDING, steps(1, 2))
    found = resume_at(tmp_path, 2, groups=1)
    assert (found.after, found.entries, found.since.steps.tolist(), found.dropped) == (0, [], [1, 2], False)


def test_a_new_recording_needs_a_folder_without_one(folder: Path, tmp_path: Path) -> None:
    expected = (
        r"has a recording already, which goes to step 6\. To go on from your own saved state, give the step that it is "
        r"of: CheckpointRecorder\(\.\.\., step=6\)\. To start anew, choose another folder"
    )
    with pytest.raises(RecordError, match=expected):
        resume_at(folder, 0, groups=1)
    assert resume_at(tmp_path / "new", 0, groups=1).after == 0


def test_a_step_beyond_the_recording_is_refused(folder: Path, tmp_path: Path) -> None:
    expected = (
        r"training resumes at step 9, and .* has not recorded every step up to it: its last checkpoint before is at "
        r"step 6\. Resume from a state at step 6, or record what follows as a run of its own: .* recorder\.flush\(\)"
    )
    with pytest.raises(RecordError, match=expected):
        resume_at(folder, 9, groups=1)
    with pytest.raises(RecordError, match=r"resumes at step 5, .* checkpoint before is at step 0"):
        resume_at(tmp_path / "new", 5, groups=1)


def test_a_gap_is_refused(folder: Path) -> None:
    """A listing by hand may have no history, and then only its checkpoints can be resumed."""
    listed(folder, {}, {"history": None})
    with pytest.raises(RecordError, match=r"resumes at step 5, .* checkpoint before is at step 3"):
        resume_at(folder, 5, groups=1)
    assert resume_at(folder, 6, groups=1).since.steps.tolist() == []
    write_history(folder / PENDING, steps(8, 8))
    with pytest.raises(RecordError, match=r"resumes at step 8, .* checkpoint before is at step 6"):
        resume_at(folder, 8, groups=1)


def test_another_number_of_groups_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="recorded with 1 parameter groups, and the optimizer has 2; record into an"):
        resume_at(folder, 6, groups=2)
    new = tmp_path / "new"
    write_history(new / PENDING, steps(1, 2))
    with pytest.raises(RecordError, match="recorded with 1 parameter groups, and the optimizer has 3"):
        resume_at(new, 2, groups=3)


def test_a_checkpoint_without_a_step_is_refused(folder: Path) -> None:
    listed(folder, {}, {"step": None})
    with pytest.raises(
        RecordError, match=r"lists a checkpoint without a step; write it into checkpoints\.json to resum"
    ):
        resume_at(folder, 3, groups=1)


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_pending_steps_that_are_unreadable_are_refused(folder: Path, content: bytes) -> None:
    (folder / PENDING).write_bytes(content)
    with pytest.raises(RecordError, match=r"since-last.*' is no history; remove it and resume at a checkpoint"):
        resume_at(folder, 7, groups=1)


def test_nothing_begins_after_its_step() -> None:
    found = nothing_at(4)
    assert (found.after, len(found.since.steps), found.entries, found.dropped) == (4, 0, [], False)
