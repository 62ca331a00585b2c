"""What a recording holds at a step, and where it cannot be resumed."""

from pathlib import Path
from typing import Any

import pytest

from indexer.checkpoints.formats.listing import PENDING, write_history, write_listing
from indexer.checkpoints.history import History, history
from indexer.errors import RecordError
from indexer.record.resume import nothing_at, resume_at


def about(groups: int = 1, **other: Any) -> dict[str, Any]:
    """What is known of a training with so many groups of a parameter each."""
    names = [[f"weight{number}"] for number in range(groups)]
    return {"optimizer": {"name": "sgd"}, "steps_per_epoch": 4, "parameter_groups": names, **other}


ABOUT = about()


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


def listed(folder: Path, *changes: dict[str, Any], **about: Any) -> Path:
    entries = [
        {"file": f"{at}.safetensors", "step": at, "history": f"{at}.history.safetensors", **change}
        for at, change in zip((3, 6), changes, strict=True)
    ]
    write_listing(folder, entries, about)
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
    found = resume_at(folder, step, ABOUT)
    assert [entry["step"] for entry in found.entries] == kept
    assert found.after == (kept[-1] if kept else 0)
    assert found.since.steps.tolist() == found.since.losses.tolist() == since
    assert found.dropped is dropped


def test_entries_are_kept_as_they_are_written(folder: Path) -> None:
    listed(folder, {"comment": "warm-up"}, {})
    assert resume_at(folder, 3, ABOUT).entries == [
        {"file": "3.safetensors", "step": 3, "history": "3.history.safetensors", "comment": "warm-up"}
    ]


def test_pending_steps_that_are_in_the_listing_already_are_not_there_twice(folder: Path) -> None:
    """A run may die between writing its listing and removing them."""
    write_history(folder / PENDING, steps(4, 8))
    assert resume_at(folder, 8, ABOUT).since.steps.tolist() == [7, 8]
    assert resume_at(folder, 5, ABOUT).since.steps.tolist() == [4, 5]


def test_before_the_first_checkpoint_there_are_pending_steps_alone(tmp_path: Path) -> None:
    write_history(tmp_path / PENDING, steps(1, 2))
    found = resume_at(tmp_path, 2, ABOUT)
    assert (found.after, found.entries, found.since.steps.tolist(), found.dropped) == (0, [], [1, 2], False)


def test_a_new_recording_needs_a_folder_without_one(folder: Path, tmp_path: Path) -> None:
    expected = (
        r"has a recording already, which goes to step 6\. To go on from your own saved state, give the step that it is "
        r"of: CheckpointRecorder\(\.\.\., step=6\); trainers do so in trainer\.train\(resume_from_checkpoint=\.\.\.\) "
        r"and trainer\.fit\(\.\.\., ckpt_path=\.\.\.\)\. To start anew, choose another folder"
    )
    with pytest.raises(RecordError, match=expected):
        resume_at(folder, 0, ABOUT)
    assert resume_at(tmp_path / "new", 0, ABOUT).after == 0


def test_a_step_beyond_the_recording_is_refused(folder: Path) -> None:
    expected = (
        r"training resumes at step 9, and .* has not recorded every step up to it: its last checkpoint before is at "
        r"step 6\. Resume from a state at step 6, or record into another folder, which then begins at this step\. In a "
        r"loop of your own, recorder\.flush\(\) beside your own save makes its step one to resume at"
    )
    with pytest.raises(RecordError, match=expected):
        resume_at(folder, 9, ABOUT)


def test_in_a_folder_without_one_a_recording_begins_where_the_training_is(tmp_path: Path) -> None:
    found = resume_at(tmp_path / "new", 5, ABOUT)
    assert (found.after, len(found.since.steps), found.entries, found.dropped) == (5, 0, [], False)


def test_a_recording_that_began_late_goes_on(tmp_path: Path) -> None:
    """Before its first checkpoint, after it, at its beginning; not before that."""
    write_history(tmp_path / PENDING, steps(6, 8))
    found = resume_at(tmp_path, 7, ABOUT)
    assert (found.after, found.since.steps.tolist()) == (5, [6, 7])
    with pytest.raises(
        RecordError, match=r"step 4, and .*: it begins after step 5\. Resume from a state at step 5, or"
    ):
        resume_at(tmp_path, 4, ABOUT)
    (tmp_path / "9.safetensors").touch()
    write_history(tmp_path / "9.history.safetensors", steps(6, 9))
    write_listing(tmp_path, [{"file": "9.safetensors", "step": 9, "history": "9.history.safetensors"}], {})
    for step, after, since, dropped in ((9, 9, [], False), (7, 5, [6, 7], True), (5, 5, [], True)):
        found = resume_at(tmp_path, step, ABOUT)
        assert (found.after, found.since.steps.tolist(), found.dropped) == (after, since, dropped)
    with pytest.raises(RecordError, match=r"it begins after step 5\. Resume from a state at step 5"):
        resume_at(tmp_path, 4, ABOUT)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"optimizer": {"name": "adamw"}},
            r"recorded with the optimizer 'sgd', and training goes on with 'adamw'; resume with the one that was recor",
        ),
        (
            {"steps_per_epoch": 2},
            r"recorded with 4 steps an epoch, and training goes on with 2; resume with the data, batch size and accum",
        ),
        ({"steps_per_epoch": None}, r"recorded with 4 steps an epoch, and training goes on with None"),
        (
            {"parameter_groups": [["other", "b", "c", "d"]]},
            r"recorded with 'weight0' in parameter group 1 of 1, and the optimizer has 'other', 'b', 'c' and 1 more",
        ),
        ({"parameter_groups": [[]]}, r"and the optimizer has nothing there; give it the groups that were recorded, in"),
    ],
)
def test_another_training_is_refused(folder: Path, changes: dict[str, Any], expected: str) -> None:
    listed(folder, {}, {}, **ABOUT)
    assert resume_at(folder, 6, ABOUT).after == 6
    with pytest.raises(RecordError, match=f"{expected}.*, or record into another folder, which then begins at this st"):
        resume_at(folder, 6, {**ABOUT, **changes})


def test_a_gap_is_refused(folder: Path) -> None:
    """A listing by hand may have no history, and then only its checkpoints can be resumed."""
    listed(folder, {}, {"history": None})
    with pytest.raises(RecordError, match=r"resumes at step 5, .* checkpoint before is at step 3"):
        resume_at(folder, 5, ABOUT)
    assert resume_at(folder, 6, ABOUT).since.steps.tolist() == []
    write_history(folder / PENDING, steps(8, 8))
    with pytest.raises(RecordError, match=r"resumes at step 8, .* checkpoint before is at step 6"):
        resume_at(folder, 8, ABOUT)


def test_another_number_of_groups_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="recorded with 1 parameter groups, and the optimizer has 2; resume with"):
        resume_at(folder, 6, about(2))
    new = tmp_path / "new"
    write_history(new / PENDING, steps(1, 2))
    with pytest.raises(RecordError, match="recorded with 1 parameter groups, and the optimizer has 3"):
        resume_at(new, 2, about(3))


def test_a_checkpoint_without_a_step_is_refused(folder: Path) -> None:
    listed(folder, {}, {"step": None})
    with pytest.raises(
        RecordError, match=r"lists a checkpoint without a step; write it into checkpoints\.json to resum"
    ):
        resume_at(folder, 3, ABOUT)


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_pending_steps_that_are_unreadable_are_refused(folder: Path, content: bytes) -> None:
    (folder / PENDING).write_bytes(content)
    with pytest.raises(RecordError, match=r"since-last.*' is no history; remove it and resume at a checkpoint"):
        resume_at(folder, 7, ABOUT)


def test_nothing_begins_after_its_step() -> None:
    found = nothing_at(4)
    assert (found.after, len(found.since.steps), found.entries, found.dropped) == (4, 0, [], False)
