"""Recording what Hugging Face's Trainer trains, as one of its callbacks.

The Trainer tells callbacks no batch's loss: what it logs, the mean over the steps since it logged before, is noted at
the step that it logs at. ``logging_steps=1`` notes every step's. By default it replaces losses that are NaN before they
are logged (``logging_nan_inf_filter``).
"""

import math
from pathlib import Path
from typing import Any

from indexer.errors import MissingExtraError
from indexer.record.recorder import CheckpointRecorder

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as exc:
    raise MissingExtraError(
        "recording from Hugging Face's Trainer needs transformers: pip install 'proponent[huggingface]'"
    ) from exc


class RecordCheckpoints(TrainerCallback):
    """``Trainer(..., callbacks=[RecordCheckpoints("runs/reviews")])``.

    every: steps of the optimizer from checkpoint to checkpoint, one an epoch if it is not given. optimizer_state: write
    it beside each, for ``--preconditioner adam``. ``trainer.train(resume_from_checkpoint=...)`` resumes the recording.
    """

    def __init__(self, folder: str | Path, *, every: int | None = None, optimizer_state: bool = False) -> None:
        self._folder = Path(folder)
        self._every = every
        self._optimizer_state = optimizer_state
        self._recorder: CheckpointRecorder | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start a recording, or resume it where the training does."""
        if self._recorder is not None:  # a training before this one, which died
            self._recorder.detach()
        if not state.is_world_process_zero:
            return
        self._recorder = CheckpointRecorder(
            self._folder,
            kwargs["model"],
            kwargs["optimizer"],
            steps_per_epoch=_steps_per_epoch(kwargs.get("train_dataloader"), args.gradient_accumulation_steps),
            every=self._every,
            optimizer_state=self._optimizer_state,
            step=state.global_step,
        )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the checkpoint of the step before, now that its loss was logged if it is at all."""
        if self._recorder is not None:
            self._recorder.save_if_due()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count a step that the optimizer skipped, as the Trainer does."""
        if self._recorder is not None:
            self._recorder.catch_up(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the mean loss of the steps since the log before."""
        if self._recorder is not None and logs is not None and "loss" in logs:
            self._recorder.note(float(logs["loss"]))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Make the step of the Trainer's own checkpoint one to resume at."""
        if self._recorder is not None:
            self._recorder.flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the last checkpoint."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None


def _steps_per_epoch(loader: Any, accumulated: int) -> int | None:
    """Return the optimizer's steps an epoch; None where the loader does not know its length."""
    try:
        return max(1, math.ceil(len(loader) / accumulated))
    except TypeError:
        return None
