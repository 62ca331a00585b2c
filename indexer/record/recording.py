"""The files of a recording: each is written whole or not at all, and the listing names only what is complete.

A run that dies leaves the listing of its last checkpoint. One that is resumed before checkpoints it had made takes them
off the listing first and writes theirs anew then, so that no listing names weights of one course beside the history of
another.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from indexer.atomic import write_atomically
from indexer.checkpoints.formats.listing import LISTING, write_history, write_listing
from indexer.checkpoints.history import History
from indexer.errors import RecordError
from indexer.record.resume import PENDING, Recorded
from indexer.record.steps import Steps


@dataclass(frozen=True, slots=True)
class State:
    """What a checkpoint holds; optimizer: the bytes of its state, None to leave it out."""

    weights: Mapping[str, Tensor]
    optimizer: bytes | None
    epoch: float | None


class Recording:
    """A folder, the entries of its listing, and whether the listing on disk has others that are dropped.

    ``about`` in its methods is what is known of the run as a whole.
    """

    def __init__(self, folder: Path, recorded: Recorded) -> None:
        self.folder = folder
        self._entries = list(recorded.entries)
        self._dropped = recorded.dropped

    def name(self, wanted: str | None, step: int) -> str:
        """Return what the files of the checkpoint at a step are called, without suffix.

        Raises:
            RecordError: the wanted name is no plain file name, or taken by a checkpoint at another step.
        """
        stem = f"step-{step:06d}" if wanted is None else wanted
        if not stem or Path(stem).name != stem:
            raise RecordError(f"a checkpoint is called {wanted!r}; expected a file name without folder and suffix")
        for entry in self._entries:
            if entry["file"] == f"{stem}.safetensors" and entry["step"] != step:
                raise RecordError(
                    f"the checkpoint at step {step} is called {stem!r}, as is the one at step {entry['step']}; give "
                    "each a name of its own"
                )
        return stem

    def add(self, stem: str, state: State, steps: Steps, about: Mapping[str, Any]) -> None:
        """Write a checkpoint after the steps, and list it."""
        if self._dropped:
            self.keep(steps.history(), about)
        entry: dict[str, Any] = {"file": f"{stem}.safetensors", **_rates(steps.rates()), "step": steps.last}
        if state.epoch is not None:
            entry["epoch"] = state.epoch
        loss = steps.mean_loss()
        if loss is not None and math.isfinite(loss):
            entry["train_loss"] = loss
        write_atomically(self.folder / entry["file"], safetensors.torch.save(dict(state.weights)))
        if state.optimizer is not None:
            entry["optimizer_state"] = f"{stem}.optimizer.pt"
            write_atomically(self.folder / entry["optimizer_state"], state.optimizer)
        entry["history"] = f"{stem}.history.safetensors"
        write_history(self.folder / entry["history"], steps.history())
        self._entries.append(entry)
        write_listing(self.folder, self._entries, about)
        (self.folder / PENDING).unlink(missing_ok=True)

    def keep(self, noted: History, about: Mapping[str, Any]) -> None:
        """Write the steps since the last checkpoint, which the listing does not name, and take off what is dropped."""
        if len(noted.steps):
            write_history(self.folder / PENDING, noted)
        if not self._dropped:
            return
        if self._entries:
            write_listing(self.folder, self._entries, about)
        else:
            (self.folder / LISTING).unlink(missing_ok=True)
        self._dropped = False


def _rates(rates: list[float]) -> dict[str, Any]:
    """Return the rates as an entry has them; none where the optimizer has none."""
    if not all(map(math.isfinite, rates)):
        return {}
    return {"learning_rate": rates[0]} if len(rates) == 1 else {"learning_rates": rates}
