"""A folder of checkpoints: state-dict files and a ``checkpoints.json`` that lists them in training order.

    {"checkpoints": [{"file": "epoch-01.safetensors", "learning_rate": 0.05, "step": 71, "epoch": 1,
                      "train_loss": 0.61, "optimizer_state": "epoch-01.optimizer.pt"}, ...],
     "optimizer": {"name": "adam", "betas": [0.9, 0.999], "eps": 1e-8}}

``file`` and ``learning_rate`` (the optimizer's rate at that moment, eta of TracInCP) are required; other keys
are kept where Proponent knows them and ignored where it does not. Files are safetensors, or what ``torch.save``
wrote of a state dict, read with ``weights_only=True``: reading a checkpoint never runs code from it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from indexer.checkpoints.optimizer import Optimizer, read_optimizer
from indexer.checkpoints.weights_only import load_weights_only
from indexer.errors import CheckpointError, LearningRateError

LISTING = "checkpoints.json"
_ADVICE = "save `model.state_dict()` with torch.save or safetensors"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One entry of a folder's listing, with the optimizer of the run."""

    path: Path
    learning_rate: float
    step: int | None = None
    epoch: float | None = None
    train_loss: float | None = None
    optimizer: Optimizer | None = None
    optimizer_state: Path | None = None


def list_checkpoints(folder: Path) -> tuple[Checkpoint, ...]:
    """Return the checkpoints of a folder in training order.

    Raises:
        CheckpointError: no listing, an unreadable one, or a listed file that does not exist.
        LearningRateError: a learning rate is missing, zero, negative or not finite.
    """
    listing = folder / LISTING
    if not listing.is_file():
        raise CheckpointError(f"{str(folder)!r} has no {LISTING}; list there each checkpoint's file and learning_rate")
    try:
        document = orjson.loads(listing.read_bytes())
        entries = document["checkpoints"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
        raise CheckpointError(f'{str(listing)!r}: expected {{"checkpoints": [...]}} in JSON') from exc
    if not isinstance(entries, list) or not entries:
        raise CheckpointError(f"{str(listing)!r}: expected at least one checkpoint, found none")
    optimizer = read_optimizer(document.get("optimizer"), repr(str(listing)))
    return tuple(
        replace(_entry(folder, entry, f"checkpoint {number} of {len(entries)}"), optimizer=optimizer)
        for number, entry in enumerate(entries, 1)
    )


def _entry(folder: Path, entry: Any, where: str) -> Checkpoint:
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
        raise CheckpointError(f"{where} in {str(folder / LISTING)!r} names no 'file'")
    where = f"{where} ({entry['file']!r})"
    if not (folder / entry["file"]).is_file():
        raise CheckpointError(f"{where} does not exist in {str(folder)!r}; restore the file or take it off {LISTING}")
    return Checkpoint(
        path=folder / entry["file"],
        learning_rate=_learning_rate(entry, where),
        step=_step(entry, where),
        epoch=_number(entry, "epoch", where),
        train_loss=_number(entry, "train_loss", where),
        optimizer_state=_optimizer_state(folder, entry, where),
    )


def _optimizer_state(folder: Path, entry: Mapping[str, Any], where: str) -> Path | None:
    name = entry.get("optimizer_state")
    if name is None:
        return None
    if not isinstance(name, str) or not (folder / name).is_file():
        raise CheckpointError(
            f"{where} has optimizer_state {name!r}, which does not exist in {str(folder)!r}; restore the file or take "
            f"the entry off {LISTING}"
        )
    return folder / name


def _learning_rate(entry: Mapping[str, Any], where: str) -> float:
    rate = entry.get("learning_rate")
    if rate is None:
        raise LearningRateError(
            f"{where} has no learning_rate; write into {LISTING} the rate that the optimizer used at it"
        )
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise LearningRateError(
            f"{where} has learning_rate {rate!r}; expected a positive number: with zero the checkpoint would count for "
            "nothing. Leave the checkpoint out, or write the rate of the steps that led to it"
        )
    return float(rate)


def _step(entry: Mapping[str, Any], where: str) -> int | None:
    step = _number(entry, "step", where)
    if step is None:
        return None
    if step != int(step):
        raise CheckpointError(f"{where} has step {step!r}; expected a whole number")
    return int(step)


def _number(entry: Mapping[str, Any], key: str, where: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"{where} has {key} {value!r}; expected a number")
    return float(value)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint file, on the CPU.

    Raises:
        CheckpointError: the file is unreadable, or holds anything but tensors by name.
    """
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as exc:
            raise CheckpointError(f"{str(path)!r} cannot be read as weights only; {_ADVICE}") from exc
    state = load_weights_only(path, _ADVICE)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{str(path)!r} holds more than tensors by name; save `model.state_dict()` alone")
    return state


def load_into(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load the weights into the module, every name and shape checked first; ``where`` names the checkpoint.

    Raises:
        CheckpointError: names or shapes differ; the first difference is named.
    """
    expected = module.state_dict()
    for name, tensor in expected.items():
        if name not in state:
            raise CheckpointError(
                f"{where} has no {name!r}, which the task's model has; was it saved from another model?"
            )
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{where}: expected {name!r} of shape {tuple(tensor.shape)} as in the task's model, "
                f"found {tuple(state[name].shape)}"
            )
        if not torch.isfinite(state[name]).all():
            raise CheckpointError(f"{where}: {name!r} holds NaN or infinity; the training diverged before it was saved")
    extra = sorted(set(state) - set(expected))
    if extra:
        raise CheckpointError(
            f"{where} has {extra[0]!r}, which the task's model has not; was it saved from another model?"
        )
    module.load_state_dict(dict(state))
