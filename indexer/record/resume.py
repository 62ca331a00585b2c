"""What a folder already holds of a run, so that a recording goes on where the training does.

A training resumes from its own state at some step, which need not be that of a checkpoint. The checkpoints after the
step leave the listing, and the steps between the last one kept and the step, which the history of a dropped one may
hold, are carried over: none is lost, none is there twice.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import safetensors
import safetensors.numpy

from indexer.checkpoints.formats.listing import LISTING, read_listing
from indexer.checkpoints.history import History, history
from indexer.errors import RecordError

PENDING = "since-last-checkpoint.history.safetensors"


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


def resume_at(folder: Path, step: int, groups: int) -> Recorded:
    """Return what is recorded up to a step; groups: how many the optimizer has.

    Raises:
        RecordError: the recording does not reach the step, has gaps before it, is of an optimizer with other groups,
            or exists, though training starts with step 0.
    """
    entries = _listed(folder)
    last = entries[-1]["step"] if entries else 0
    if step == 0:
        if entries:
            raise RecordError(
                f"{str(folder)!r} has a recording already, which goes to step {last}. To go on from your own saved "
                f"state, give the step that it is of: CheckpointRecorder(..., step={last}). To start anew, choose "
                "another folder"
            )
        return nothing_at(0)
    noted = read_listing(folder).history if entries else history([])
    pending = _read_pending(folder / PENDING)
    for part in (noted, pending):
        if part.learning_rates.shape[1] not in (0, groups):
            raise RecordError(
                f"{str(folder)!r} is recorded with {part.learning_rates.shape[1]} parameter groups, and the optimizer "
                f"has {groups}; record into another folder"
            )
    kept = [entry for entry in entries if entry["step"] <= step]
    after = kept[-1]["step"] if kept else 0
    since = _joined(_between(noted, after, step), _between(pending, last, step))
    if not np.array_equal(since.steps, np.arange(after + 1, step + 1)):
        raise RecordError(
            f"training resumes at step {step}, and {str(folder)!r} has not recorded every step up to it: its last "
            f"checkpoint before is at step {after}. Resume from a state at step {after}, or record what follows as a "
            "run of its own: another folder, without step=. recorder.flush() beside your own save makes its step one "
            "to resume at"
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


def _read_pending(path: Path) -> History:
    if not path.exists():
        return history([])
    try:
        return History(**safetensors.numpy.load_file(path))
    except (safetensors.SafetensorError, OSError, TypeError) as exc:
        raise RecordError(f"{str(path)!r} is no history; remove it and resume at a checkpoint") from exc


def _between(noted: History, after: int, until: int) -> History:
    chosen = (noted.steps > after) & (noted.steps <= until)
    return History(
        *(noted.steps[chosen], noted.learning_rates[chosen]), *(noted.losses[chosen], noted.gradient_norms[chosen])
    )


def _joined(first: History, second: History) -> History:
    """Return both, one after the other; an empty one has no groups either."""
    if not len(first.steps) or not len(second.steps):
        return first if len(first.steps) else second
    return History(
        np.concatenate([first.steps, second.steps]),
        np.concatenate([first.learning_rates, second.learning_rates]),
        np.concatenate([first.losses, second.losses]),
        np.concatenate([first.gradient_norms, second.gradient_norms]),
    )
