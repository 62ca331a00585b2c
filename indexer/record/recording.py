"""The files of a recording: each is written whole or not at all, and the listing names only what is complete.

A run that dies leaves the listing of its last checkpoint. One that is resumed before checkpoints it had made takes them
off the listing first and writes theirs anew then, so that no listing names weights of one course beside the history of
another.
"""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from indexer.atomic import TEMPORARY, writing
from indexer.checkpoints.formats.listing import HISTORY, LISTING, OPTIMIZER, PENDING, write_history, write_listing
from indexer.checkpoints.history import History
from indexer.errors import RecordError
from indexer.record.resume import Recorded
from indexer.record.steps import Steps
from indexer.record.subject import State

_RESERVED = tuple(ending.removesuffix(Path(ending).suffix) for ending in (HISTORY, OPTIMIZER))


class Recording:
    """A folder, the entries of its listing, and whether the listing on disk has others that are dropped.

    ``about`` in its methods is what is known of the run as a whole.
    """

    def __init__(self, folder: Path, recorded: Recorded) -> None:
        self.folder = folder
        self._entries = list(recorded.entries)
        self._dropped = recorded.dropped
        self._new = not recorded.entries and not recorded.dropped and not len(recorded.since.steps)

    def prepare(self) -> None:
        """Make the folder, see that it can be written, and remove what is of no use.

        That is what a process that was killed left half written, and the steps of a course that begins anew.

        Raises:
            RecordError: it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder, prefix=TEMPORARY) as probe:
                probe.write(b"probe")
        except OSError as exc:
            raise RecordError(
                f"{str(self.folder)!r}: expected a folder that the recording can be written to, found "
                f"{type(exc).__name__} ({exc}); choose another, or see to its permissions and the space on its disk"
            ) from exc
        if self._new:
            (self.folder / PENDING).unlink(missing_ok=True)
        for path in self.folder.glob(f"{TEMPORARY}*"):
            if path.is_file():
                path.unlink()

    def name(self, wanted: str | None, step: int) -> str:
        """Return what the files of the checkpoint at a step are called, without suffix.

        Raises:
            RecordError: the wanted name is no plain file name, is that of a file beside weights, or is taken by a
                checkpoint at another step.
        """
        stem = f"step-{step:06d}" if wanted is None else wanted
        if not stem or Path(stem).name != stem or stem.startswith("."):
            raise RecordError(f"a checkpoint is called {wanted!r}; expected a file name without folder and suffix")
        if stem.endswith(_RESERVED):
            raise RecordError(
                f"a checkpoint is called {wanted!r}; expected a name that does not end in "
                f"{' or '.join(map(repr, _RESERVED))}, as those of the files beside the weights do"
            )
        for entry in self._entries:
            if entry["file"] == f"{stem}.safetensors" and entry["step"] != step:
                raise RecordError(
                    f"the checkpoint at step {step} is called {stem!r}, as is the one at step {entry['step']}; give "
                    "each a name of its own"
                )
        return stem

    def add(self, stem: str, state: State, steps: Steps, about: Mapping[str, Any]) -> None:
        """Write a checkpoint after the steps, list it, and begin the steps anew; the listing stays if that fails."""
        noted = steps.history()
        if self._dropped:
            self.keep(noted, about)
        entry: dict[str, Any] = {"file": f"{stem}.safetensors", **_rates(steps.rates()), "step": steps.last}
        if state.epoch is not None:
            entry["epoch"] = state.epoch
        loss = steps.mean_loss()
        if loss is not None and math.isfinite(loss):
            entry["train_loss"] = loss
        # the history first: without a listing it says that the weights beside it are of a recording
        write_history(self.folder / f"{stem}{HISTORY}", noted)
        _write_weights(self.folder / entry["file"], state.weights)
        if state.optimizer is not None:
            entry["optimizer_state"] = f"{stem}{OPTIMIZER}"
            _write_optimizer(self.folder / entry["optimizer_state"], state.optimizer)
        entry["history"] = f"{stem}{HISTORY}"
        entries = [*self._entries, entry]
        write_listing(self.folder, entries, about)
        self._entries = entries
        steps.restart()
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


def _write_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write tensors straight from where they are.

    Raises:
        OSError: the file cannot be written, as on a full disk.
    """
    with writing(path) as temporary:
        try:
            safetensors.torch.save_file(dict(weights), temporary)
        except safetensors.SafetensorError as exc:
            raise OSError(f"{str(path)!r} cannot be written: {exc}") from exc


def _write_optimizer(path: Path, state: Mapping[str, Any]) -> None:
    with writing(path) as temporary, temporary.open("wb") as file:  # given a path, torch.save keeps its random name
        torch.save(dict(state), file)


def _rates(rates: list[float]) -> dict[str, Any]:
    """Return the rates as an entry has them; none where the optimizer has none."""
    if not all(map(math.isfinite, rates)):
        return {}
    return {"learning_rate": rates[0]} if len(rates) == 1 else {"learning_rates": rates}
