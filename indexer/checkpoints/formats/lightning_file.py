"""One ``.ckpt`` of Lightning: where in the training it was saved, and the states of optimizer and scheduler in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.checkpoints.optimizer_state import find_optimizer_state
from indexer.checkpoints.values import at, count
from indexer.checkpoints.weights_only import peek_weights_only
from indexer.checkpoints.wrapped import same_state
from indexer.errors import CheckpointError

VERSION = "pytorch-lightning_version"
SWA = "StochasticWeightAveraging"
ADVICE = (
    "a .ckpt of Lightning holds more where hyper-parameters or callbacks are objects. Where you trust it, convert it "
    "once: `d = torch.load(path, weights_only=False); torch.save({k: d[k] for k in ('epoch', 'global_step', "
    f"'{VERSION}', 'state_dict', 'loops', 'optimizer_states', 'lr_schedulers') if k in d}}, new_path)`; or save with "
    "ModelCheckpoint(save_weights_only=True) and plain hyper-parameters"
)
_STATISTIC = re.compile(r"(^|\.)(running_\w+|num_batches_tracked)$")
_LOOPS = ("automatic_optimization.optim_progress", "manual_optimization.optim_step_progress")


@dataclass(frozen=True, slots=True)
class Saved:
    """A file's state.

    step: of the optimizer. epochs: that were finished; finished: the steps in those; both None where the loops are not
    saved. batches: that stepped, as loggers count. optimizer: its state, or None. schedulers: None where none could be
    saved, [] where there was none. averaged: whether the weights are a moving average of the trained ones; swa: whether
    they are what StochasticWeightAveraging ends with, after a step that has no gradient where it renews statistics.
    """

    path: Path
    step: int
    epochs: int | None
    finished: int | None
    batches: int | None
    optimizer: Mapping[str, Any] | None
    schedulers: list[Any] | None
    averaged: bool = False
    swa: bool = False


def is_lightning(path: Path) -> bool:
    """Whether a .ckpt is Lightning's.

    Raises:
        CheckpointError: it cannot be read.
    """
    document = peek_weights_only(path, ADVICE)
    return isinstance(document, Mapping) and VERSION in document


def same_weights(path: Path, other: Path) -> bool:
    """Whether two files have the same weights, whatever their running statistics.

    Those change with every batch, and a step of the optimizer may take several.

    Raises:
        CheckpointError: one cannot be read.
    """
    one, two = (at(peek_weights_only(file, ADVICE), "state_dict") for file in (path, other))
    return same_state(_trained(one), _trained(two))


def read_file(path: Path) -> Saved:
    """Return the state of a file.

    Raises:
        CheckpointError: it cannot be read, is not Lightning's, or has several optimizers.
    """
    document = peek_weights_only(path, ADVICE)
    step = count(at(document, "global_step"))
    if at(document, VERSION) is None or step is None or not isinstance(at(document, "state_dict"), Mapping):
        raise CheckpointError(
            f"checkpoint {path.name!r} in {str(path.parent)!r}: expected Lightning's global_step and state_dict; "
            "move files of another kind away"
        )
    optimizers, schedulers = document.get("optimizer_states"), document.get("lr_schedulers")
    if isinstance(optimizers, list) and len(optimizers) > 1:
        raise CheckpointError(
            f"checkpoint {path.name!r} in {str(path.parent)!r} has {len(optimizers)} optimizers, expected one: no step "
            "of the whole model has one learning rate. List its file and rate in checkpoints.json"
        )
    epochs, finished = _progress(at(document, "loops", "fit_loop"), step)
    return Saved(
        path=path,
        step=step,
        epochs=epochs,
        finished=finished,
        batches=count(at(document, "loops", "fit_loop", "epoch_loop.state_dict", "_batches_that_stepped")),
        optimizer=find_optimizer_state({"optimizer_states": optimizers}),
        schedulers=schedulers if isinstance(schedulers, list) else None,
        averaged=isinstance(document.get("current_model_state"), Mapping),
        swa=_ends_swa(at(document, "callbacks", SWA), document["state_dict"]),
    )


def _trained(state: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a state without the running statistics of batches."""
    return {name: value for name, value in state.items() if not _STATISTIC.search(str(name))}


def _ends_swa(callback: Any, state: Mapping[str, Any]) -> bool:
    """Whether the weights are the average that the callback keeps: only after the last epoch they are."""
    average = at(callback, "average_model_state")
    return (
        bool(count(at(callback, "n_averaged")))
        and isinstance(average, Mapping)
        and same_state(_trained(average), _trained(state))
    )


def _progress(loop: Any, step: int) -> tuple[int | None, int | None]:
    """Return the epochs that were finished, and the optimizer's steps in them.

    A file of an epoch's last batch may be saved before the epoch is noted as processed: it has begun, which is enough.
    """
    at_end = at(loop, "epoch_loop.batch_progress", "is_last_batch") is True
    epochs = count(at(loop, "epoch_progress", "current", "ready" if at_end else "processed"))
    for name in _LOOPS:
        progress = at(loop, f"epoch_loop.{name}")
        steps = at(progress, "optimizer", "step") or progress  # a loop of manual steps counts them directly
        if count(at(steps, "total", "completed")) == step:
            within = count(at(steps, "current", "completed"))
            return epochs, step if at_end else None if within is None else step - within
    return epochs, None
