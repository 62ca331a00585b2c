"""What a folder already holds of a run, so that a recording goes on where the training does.

A training resumes from its own state at some step, which need not be that of a checkpoint. The checkpoints after the
step leave the listing, and the steps between the last one kept and the step, which the history of a dropped one may
hold, are carried over: none is lost, none is there twice. A recording may begin in the middle of a training, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import safetensors
import safetensors.numpy

from indexer.checkpoints.formats.listing import LISTING, PENDING, read_listing
from indexer.checkpoints.history import History, from_series, history
from indexer.errors import RecordError
from indexer.record.steps import joined

_ELSEWHERE = "or record into another folder, which then begins at this step"


@dataclass(frozen=True, slots=True)
class Recorded:
    """entries: of the listing, up to the step where training goes on; after: the step of the last of them.

    since: the steps after that one. dropped: whether the listing has entries after the step where training goes on.
    """

    after: int
    since: History
    entries: list[dict[str, Any]] = field(default_factory=list)
    dropped: bool = False


def nothing_at(step: int) -> Recorded:
    """Return a recording that begins after the step."""
    return Recorded(step, history([]))


def resume_at(folder: Path, step: int, about: Mapping[str, Any]) -> Recorded:
    """Return what is recorded up to a step; about: what is known of the training that goes on, as it is listed.

    Raises:
        RecordError: the recording does not reach the step, has gaps before it, is of another training, or exists,
            though training starts with step 0.
    """
    entries = _listed(folder)
    last = entries[-1]["step"] if entries else 0
    if step == 0:
        if entries:
            raise RecordError(
                f"{str(folder)!r} has a recording already, which goes to step {last}. To go on from your own saved "
                f"state, give the step that it is of: CheckpointRecorder(..., step={last}); trainers do so in "
                "trainer.train(resume_from_checkpoint=...) and trainer.fit(..., ckpt_path=...). To start anew, choose "
                "another folder"
            )
        return nothing_at(0)
    if entries:
        _check_same(folder, about)
    noted = read_listing(folder).history if entries else history([])
    pending = _read_pending(folder / PENDING)
    _check_widths(folder, (noted, pending), len(about["parameter_groups"]))
    start = _start(noted, pending, step) if not entries or entries[0].get("history") else 0
    kept = [entry for entry in entries if entry["step"] <= step]
    after = kept[-1]["step"] if kept else start
    since = joined(_between(noted, after, step), _between(pending, last, step))
    if not np.array_equal(since.steps, np.arange(after + 1, step + 1)) or step < start:
        is_so = f"its last checkpoint before is at step {after}" if kept else f"it begins after step {start}"
        raise RecordError(
            f"training resumes at step {step}, and {str(folder)!r} has not recorded every step up to it: {is_so}. "
            f"Resume from a state at step {after}, {_ELSEWHERE}. In a loop of your own, recorder.flush() beside your "
            "own save makes its step one to resume at"
        )
    return Recorded(after, since, kept, len(kept) < len(entries))


def _listed(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of the listing as they are written, once they are known to be right.

    Raises:
        RecordError: one has no step.
    """
    if not (folder / LISTING).exists():
        return []
    if None in [checkpoint.step for checkpoint in read_listing(folder).checkpoints]:
        raise RecordError(f"{str(folder)!r} lists a checkpoint without a step; write it into {LISTING} to resume it")
    entries: list[dict[str, Any]] = orjson.loads((folder / LISTING).read_bytes())["checkpoints"]
    return entries


def _check_same(folder: Path, about: Mapping[str, Any]) -> None:
    """Check that the training that goes on is the one that is listed, as far as the listing says.

    Raises:
        RecordError: it has another optimizer, other parameter groups or other epochs.
    """
    listed = orjson.loads((folder / LISTING).read_bytes())
    where = f"{str(folder)!r} is recorded with"
    optimizer, now = (listed.get("optimizer") or about["optimizer"])["name"].lower(), about["optimizer"]["name"]
    if optimizer != now:
        raise RecordError(
            f"{where} the optimizer {optimizer!r}, and training goes on with {now!r}; resume with the one that was "
            f"recorded, {_ELSEWHERE}"
        )
    steps = listed.get("steps_per_epoch")
    if steps is not None and steps != about["steps_per_epoch"]:
        raise RecordError(
            f"{where} {steps} steps an epoch, and training goes on with {about['steps_per_epoch']}; resume with the "
            f"data, batch size and accumulation that were recorded, {_ELSEWHERE}"
        )
    before, groups = listed.get("parameter_groups"), about["parameter_groups"]
    if before is None or len(before) != len(groups):
        return  # the widths of the histories say it
    for number, (expected, found) in enumerate(zip(before, groups, strict=True), 1):
        if list(expected) != list(found):
            raise RecordError(
                f"{where} {_shown(expected)} in parameter group {number} of {len(groups)}, and the optimizer has "
                f"{_shown(found)} there; give it the groups that were recorded, in their order, {_ELSEWHERE}"
            )


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown or "nothing"


def _check_widths(folder: Path, parts: Sequence[History], groups: int) -> None:
    """Check that the rates of each part are those of so many groups.

    Raises:
        RecordError: they are not.
    """
    for part in parts:
        if part.learning_rates.shape[1] not in (0, groups):
            raise RecordError(
                f"{str(folder)!r} is recorded with {part.learning_rates.shape[1]} parameter groups, and the optimizer "
                f"has {groups}; resume with the groups that were recorded, {_ELSEWHERE}"
            )


def _start(noted: History, pending: History, step: int) -> int:
    """Return the step that the recording began after; in a folder without one it begins where training goes on."""
    first = next((int(part.steps[0]) for part in (noted, pending) if len(part.steps)), step + 1)
    return first - 1


def _read_pending(path: Path) -> History:
    if not path.exists():
        return history([])
    try:
        return from_series(safetensors.numpy.load_file(path))
    except (safetensors.SafetensorError, OSError, KeyError) as exc:
        raise RecordError(f"{str(path)!r} is no history; remove it and resume at a checkpoint") from exc


def _between(noted: History, after: int, until: int) -> History:
    chosen = (noted.steps > after) & (noted.steps <= until)
    return History(
        *(noted.steps[chosen], noted.learning_rates[chosen]), *(noted.losses[chosen], noted.gradient_norms[chosen])
    )
