"""One file of a training script of one's own: what it says of its step, and the rates of the last step before it.

A dictionary is as in PyTorch's tutorial: {"model_state_dict": ..., "optimizer_state_dict": ..., "epoch": 3}. The
rate of the last step comes from the schedule where the scheduler's state tells it and no rate under a key of the file's
own says otherwise, from that key, or, where no scheduler was saved, from the optimizer. A bare state dict tells none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexer.checkpoints.formats.notes import NEXT
from indexer.checkpoints.formats.schedule import replay
from indexer.checkpoints.formats.ticks import PRINTED, Mark, close
from indexer.checkpoints.optimizer_state import OPTIMIZER_KEYS, find_optimizer_state, saved_rates
from indexer.checkpoints.values import Rates, count, measured, number
from indexer.checkpoints.weights import read_weights
from indexer.checkpoints.weights_only import peek_weights_only
from indexer.checkpoints.wrapped import MODEL_KEYS, same_state, unwrapped
from indexer.errors import CheckpointError

SCHEDULER_KEYS = ("scheduler_state_dict", "lr_scheduler_state_dict", "lr_scheduler", "scheduler", "sched")
_STEP_KEYS, _RATE_KEYS, _LOSS_KEYS = (
    ("step", "global_step", "iteration"),
    ("lr", "learning_rate"),
    ("train_loss", "loss"),
)
_USED = (*MODEL_KEYS, *OPTIMIZER_KEYS, *SCHEDULER_KEYS, *_STEP_KEYS, "epoch", *_RATE_KEYS, *_LOSS_KEYS)
_ADVICE = "save `model.state_dict()`, or {'model_state_dict': ..., 'optimizer_state_dict': ..., 'step': ...}"
_CONVERT = (
    f"{_ADVICE}. Where it holds other objects and you trust it, convert it once: `d = torch.load(path, "
    f"weights_only=False); torch.save({{k: d[k] for k in {_USED} if k in d}}, new_path)`; of a whole module, save its "
    "state_dict()"
)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a file says. rates: under a key of its own, ``key``. optimizer, scheduler: their states.

    bare: a state dict alone, which says nothing. averaged: whether its weights are those of an AveragedModel.
    """

    path: Path
    step: int | None = None
    epoch: float | None = None
    loss: float | None = None
    rates: Rates = ()
    key: str | None = None
    optimizer: Mapping[str, Any] | None = None
    scheduler: Mapping[str, Any] | None = None
    bare: bool = False
    averaged: bool = False

    @property
    def mark(self) -> Mark | None:
        """What it tells of the schedule at its step; None where it lacks one of both."""
        if not self.step or self.optimizer is None or self.scheduler is None:
            return None
        return Mark(self.step, saved_rates(self.optimizer), self.optimizer["param_groups"], self.scheduler)


def read_file(path: Path) -> Saved | None:
    """Return what a file says, or None for one that holds the state of an optimizer and no weights.

    Raises:
        CheckpointError: it cannot be read, or holds no weights.
    """
    if path.suffix == ".safetensors":
        return Saved(path, bare=True)
    document = peek_weights_only(path, _CONVERT)
    weights = unwrapped(document)
    if weights is None and find_optimizer_state(document) is not None:
        return None
    if weights is None:
        raise CheckpointError(
            f"{str(path)!r} holds no weights: expected tensors by name, or a dictionary with them under "
            f"{', '.join(map(repr, MODEL_KEYS))}; move it away, or {_ADVICE}"
        )
    averaged = "n_averaged" in weights
    if weights is document:
        return Saved(path, bare=True, averaged=averaged)
    key = _first(document, *_RATE_KEYS)
    rates = None if key is None else document[key]
    rates = [number(rate) for rate in (rates if isinstance(rates, list | tuple) else [rates])]
    return Saved(
        path,
        step=count(document.get(_first(document, *_STEP_KEYS))),
        epoch=number(document.get("epoch")),
        loss=measured(document.get(_first(document, *_LOSS_KEYS))),
        rates=tuple(rate for rate in rates if rate is not None),
        key=key,
        optimizer=find_optimizer_state(document),
        scheduler=next((document[key] for key in SCHEDULER_KEYS if isinstance(document.get(key), Mapping)), None),
        averaged=averaged,
    )


def same_weights(path: Path, other: Path) -> bool:
    """Whether two files have the same weights.

    Raises:
        CheckpointError: one cannot be read.
    """
    return same_state(read_weights(path), read_weights(other))


def last_rates(saved: Saved, stepped: int) -> tuple[Rates, str | None]:
    """Return the rates of the last step, and how they are known; stepped: 1 where the scheduler did before saving.

    A group that has ``initial_lr`` had a scheduler: where that was not saved, the optimizer's rate is the next step's.
    """
    if saved.optimizer is not None and saved.scheduler is not None:
        found = replay(saved.scheduler, saved.optimizer["param_groups"])
        if found is not None and len(found) > stepped and _allowed(saved.rates, found[-2:].tolist()):
            order = "before" if stepped else "after"
            return tuple(found[-1 - stepped].tolist()), f"from its scheduler, taken to have stepped {order} saving"
    if saved.rates:
        return saved.rates, f"as the file has it under {saved.key!r}, which may be the next step's"
    if saved.optimizer is not None and saved.scheduler is None:
        scheduled = any("initial_lr" in group for group in saved.optimizer["param_groups"])
        return saved_rates(saved.optimizer), NEXT if scheduled else "the optimizer as saved"
    return (), None


def _allowed(own: Rates, around: list[list[float]]) -> bool:
    """Whether the file's own rates, of the first groups, are those of the schedule: of its last step or the next."""
    return not own or any(close(own, rates[: len(own)], PRINTED) for rates in around)


def _first(document: Mapping[str, Any], *keys: str) -> str | None:
    return next((key for key in keys if document.get(key) is not None), None)
