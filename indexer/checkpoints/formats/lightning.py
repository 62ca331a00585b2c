"""A run of Lightning: ``*.ckpt`` of ModelCheckpoint, and ``metrics.csv`` of CSVLogger beside them.

The rate in a saved optimizer is the next step's where there is a scheduler, which steps before saving, and the last
step's where there is none. Rates come from, in this order: the schedule, where the scheduler's state tells it, by step
or by epoch, and it agrees with all that was noted; LearningRateMonitor's in ``metrics.csv``, and the saved ones; a
straight line between those. Without a scheduler nothing is noted but at the checkpoints: a script may set rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from indexer.checkpoints.formats.lightning_file import SWA, Saved, read_file, same_weights
from indexer.checkpoints.formats.metrics import METRICS, read_metrics
from indexer.checkpoints.formats.notes import NEXT, Notes, loss_at, rates_at
from indexer.checkpoints.formats.ticks import PRINTED, Mark, close, scheduled
from indexer.checkpoints.groups import parameter_groups
from indexer.checkpoints.history import History
from indexer.checkpoints.optimizer_state import recognise, saved_rates, unknown_optimizer
from indexer.checkpoints.run import Checkpoint, Run
from indexer.checkpoints.values import Rates
from indexer.checkpoints.wrapped import averages
from indexer.errors import CheckpointError

KIND = "a run of Lightning"
_BY_HAND = "as the optimizer was saved: rates were set by hand, and this one may be the next step's"
_AVERAGED = (
    "the weights are a moving average (WeightAveraging) of those that were trained, at which no step was taken: "
    "Lightning keeps these beside them, under 'current_model_state'"
)


def lightning_files(folder: Path) -> list[Path]:
    """Return the ``.ckpt`` files of the one run in a folder.

    Raises:
        CheckpointError: there are several runs.
    """
    for inner in (folder, folder / "checkpoints"):
        if files := _files(inner):
            return files
    versions = [*folder.glob("version_*/checkpoints"), *folder.glob("lightning_logs/version_*/checkpoints")]
    runs = sorted(inner for inner in versions if _files(inner))
    if len(runs) > 1:
        listed = ", ".join(repr(str(inner.parent.relative_to(folder))) for inner in runs)
        raise CheckpointError(
            f"{str(folder)!r} holds {len(runs)} runs of Lightning: {listed}; give one of them, "
            "or, where one goes on with another's training, move the files of both into one folder"
        )
    return _files(runs[0]) if runs else []


def read_lightning(folder: Path, files: Sequence[Path]) -> Run:
    """Return the run of a folder's ``.ckpt`` files; of several files of one step the first, and ``last`` the last.

    Raises:
        CheckpointError: a file cannot be read, has several optimizers, or other weights than another one of its step.
    """
    saved = _by_step([read_file(path) for path in files])
    marks = [_mark(entry) for entry in saved if entry.optimizer is not None]
    steps_per_epoch = _steps_per_epoch(saved)
    notes, caveats = _noted(files[0].parent, saved, marks)
    if len({len(mark.rates) for mark in marks}) > 1:
        notes.rates.clear()
        marks, caveats = [], ("the optimizer got parameter groups while it trained: their rates are not known",)
    told: dict[int, Rates] = {mark.step: mark.rates for mark in marks}
    if any(entry.schedulers for entry in saved):
        told, more = scheduled(marks, steps_per_epoch, notes.rates)
        caveats += more
    by_hand = _by_hand(saved, marks) - notes.rates.keys()
    exact = {step: rates for step, rates in told.items() if close(notes.rates.get(step, rates), rates, PRINTED)}
    notes.rates.update(exact)
    noted = replace(notes, held=any(mark.goes_down_in_steps for mark in marks)).history()
    following = {mark.step: mark.rates for mark in marks}
    caveats += (_AVERAGED,) if any(entry.averaged for entry in saved) else ()
    caveats += averages([entry.path.name for entry in saved if entry.swa], SWA)
    last = next((entry.optimizer for entry in reversed(saved) if entry.optimizer is not None), None)
    return Run(
        folder=folder,
        kind=KIND,
        checkpoints=tuple(
            replace(found, rates_from=_BY_HAND) if found.step in by_hand else found
            for found in (_checkpoint(entry, noted, following, steps_per_epoch) for entry in saved)
        ),
        history=noted,
        groups=() if last is None else parameter_groups(last),
        steps_per_epoch=steps_per_epoch,
        optimizer=None if last is None else recognise(last),
        caveats=caveats if last is None else (*caveats, *unknown_optimizer(last)),
    )


def _files(folder: Path) -> list[Path]:
    """Return a folder's ``.ckpt`` files by name, ``last`` at the end, without links to others of them.

    Raises:
        CheckpointError: one is a folder.
    """
    found: dict[Path, Path] = {}
    for path in sorted(folder.glob("*.ckpt"), key=lambda path: (path.is_symlink(), path.stem[:4] == "last", path.name)):
        if path.is_dir():
            raise CheckpointError(
                f"{str(path)!r} is a folder with parts of a checkpoint; make one file of it with `python -m "
                "lightning.pytorch.utilities.consolidate_checkpoint`"
            )
        found.setdefault(path.resolve(), path)
    return list(found.values())


def _by_step(saved: Sequence[Saved]) -> list[Saved]:
    """Return one file a step, those with an optimizer's state before those without.

    Raises:
        CheckpointError: two files of one step have different weights, as when a second training saved beside a first.
    """
    first: dict[int, Saved] = {}
    for entry in sorted(saved, key=lambda entry: entry.optimizer is None):
        kept = first.setdefault(entry.step, entry)
        if kept is not entry and not same_weights(kept.path, entry.path):
            raise CheckpointError(
                f"{kept.path.name!r} and {entry.path.name!r} in {str(kept.path.parent)!r} are both of step "
                f"{entry.step} and have different weights: they may be of two trainings; move the files of "
                "the other one away"
            )
    return [first[step] for step in sorted(first)]


def _by_hand(saved: Sequence[Saved], marks: Sequence[Mark]) -> set[int]:
    """Return the steps whose saved rates a script may have set for the next one: without a scheduler they differ."""
    differ = len({mark.rates for mark in marks}) > 1 and not any(entry.schedulers for entry in saved)
    return {mark.step for mark in marks} if differ else set()


def _mark(saved: Saved) -> Mark:
    assert saved.optimizer is not None
    only = saved.schedulers[0] if saved.schedulers and len(saved.schedulers) == 1 else None
    return Mark(
        saved.step,
        saved_rates(saved.optimizer),
        saved.optimizer["param_groups"],
        only if isinstance(only, dict) else {},
    )


def _steps_per_epoch(saved: Sequence[Saved]) -> float | None:
    known = [entry.finished / entry.epochs for entry in saved if entry.finished and entry.epochs and not entry.swa]
    return known[-1] if known else None


def _noted(folder: Path, saved: Sequence[Saved], marks: Sequence[Mark]) -> tuple[Notes, tuple[str, ...]]:
    """Return what ``metrics.csv`` notes, without its rates where it is not of these files."""
    path = _metrics(folder)
    if path is None:
        return Notes(), ()
    groups = marks[-1].groups if marks else []
    names = [group.get("name") if isinstance(group.get("name"), str) else None for group in groups]
    notes = read_metrics(path, names)
    if any(entry.batches is not None and not 0 <= entry.step - entry.batches <= 1 for entry in saved):
        return Notes(), (f"{METRICS} counts other steps than the optimizer's, and is left out",)
    if any(not _agree(notes, mark, bool(mark.scheduler)) for mark in marks):
        return replace(notes, rates={}), (f"{METRICS} has other learning rates than the checkpoints; its are left out",)
    return notes, ()


def _metrics(folder: Path) -> Path | None:
    """Return the file of a folder of ``.ckpt`` files: in it, above its checkpoints/, or of the one version below it."""
    near = [folder / METRICS, *([folder.parent / METRICS] if folder.name == "checkpoints" else [])]
    below = list(folder.glob(f"lightning_logs/version_*/{METRICS}"))
    return next((path for path in (*near, *(below if len(below) == 1 else [])) if path.is_file()), None)


def _agree(notes: Notes, mark: Mark, scheduled: bool) -> bool:
    """Whether a saved rate is one of those noted around its step; without a scheduler, that of the step itself.

    Rows may be far between, as of a monitor by epoch: the last one until the step tells its rate then.
    """
    deciding = mark.step + 1 if scheduled else mark.step
    before = [step for step in notes.rates if step <= mark.step]
    around = [notes.rates[step] for step in (*([max(before)] if before else []), mark.step + 1) if step in notes.rates]
    return deciding not in notes.rates or any(close(rates, mark.rates, PRINTED) for rates in around)


def _checkpoint(saved: Saved, noted: History, following: Mapping[int, Rates], steps: float | None) -> Checkpoint:
    rates, origin = rates_at(noted, saved.step) or ((), None)
    if not rates and saved.step in following:
        rates, origin = following[saved.step], NEXT
    return Checkpoint(
        path=saved.path,
        learning_rates=rates,
        step=saved.step,
        epoch=None if steps is None else saved.step / steps,
        train_loss=loss_at(noted, saved.step),
        optimizer_state=None if saved.optimizer is None else saved.path,
        rates_from=origin,
    )
