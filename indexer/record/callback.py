"""What the callbacks of trainers share: a recording that begins and ends with a training."""

import math
from pathlib import Path
from typing import SupportsFloat

from torch import Tensor, nn
from torch.optim import Optimizer

from indexer.errors import RecordError
from indexer.record.numbers import Count
from indexer.record.recorder import CheckpointRecorder


class TrainerRecording:
    """A recording of one training after another by the same callback; between them nothing is recorded.

    folder, every, optimizer_state: as `CheckpointRecorder` has them.
    """

    def __init__(self, folder: str | Path, *, every: Count | None, optimizer_state: bool) -> None:
        self._folder = Path(folder)
        self._every = every
        self._optimizer_state = optimizer_state
        self._recorder: CheckpointRecorder | None = None

    def begin(self, model: nn.Module, optimizer: Optimizer, *, steps_per_epoch: int | None, step: int) -> None:
        """Start a recording, or resume it where the training does.

        Raises:
            RecordError: the folder or the training is none to record, or the length of an epoch is not known.
        """
        self.abandon()  # that of a training before, which died
        if self._every is None and steps_per_epoch is None:
            raise RecordError(
                "the training data has no length, so that it is not known when an epoch ends; give the steps from "
                f"checkpoint to checkpoint: RecordCheckpoints({str(self._folder)!r}, every=1000)"
            )
        self._recorder = CheckpointRecorder(
            self._folder,
            model,
            optimizer,
            steps_per_epoch=steps_per_epoch,
            every=self._every,
            optimizer_state=self._optimizer_state,
            step=step,
        )

    def count_to(self, step: int) -> None:
        """Count a step that the optimizer skipped, as the trainer does."""
        if self._recorder is not None:
            self._recorder.catch_up(step)

    def note(self, loss: Tensor | SupportsFloat | None) -> None:
        """Note the mean loss since the one before."""
        if self._recorder is not None:
            self._recorder.note(loss)

    def save_if_due(self) -> None:
        """Save a checkpoint where it is time."""
        if self._recorder is not None:
            self._recorder.save_if_due()

    def hold_if_due(self) -> None:
        """Keep the weights for a checkpoint that waits for its loss."""
        if self._recorder is not None and self._recorder.due:
            self._recorder.hold()

    def hold(self) -> None:
        """Keep the weights for a checkpoint that is saved if the training ends here, with other weights perhaps."""
        if self._recorder is not None:
            self._recorder.hold()

    def flush(self) -> None:
        """Make the step of the trainer's own checkpoint one to resume at."""
        if self._recorder is not None:
            self._recorder.flush()

    def finish(self) -> None:
        """Save the last checkpoint, and stop."""
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()

    def abandon(self) -> None:
        """Stop without a checkpoint."""
        if self._recorder is not None:
            self._recorder.detach()
            self._recorder = None


def steps_per_epoch(batches: float | int | None, accumulated: int) -> int | None:
    """Return the optimizer's steps in an epoch of so many batches; None where it has no known end.

    >>> steps_per_epoch(7, 2)
    4
    """
    return None if batches is None or math.isinf(batches) else max(1, math.ceil(batches / accumulated))
