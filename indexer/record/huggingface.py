"""Recording what Hugging Face's Trainer trains, as one of its callbacks.

The Trainer tells callbacks no batch's loss: what it logs, the mean over the steps since it logged before, is noted at
the step that it logs at. ``logging_steps=1`` notes every step's. By default it replaces losses that are NaN before they
are logged (``logging_nan_inf_filter``).
"""

from pathlib import Path
from typing import Any

from indexer.errors import MissingExtraError
from indexer.record.callback import TrainerRecording, steps_per_epoch

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as exc:
    raise MissingExtraError(
        "recording from Hugging Face's Trainer needs transformers: pip install 'proponent[huggingface]'"
    ) from exc


class RecordCheckpoints(TrainerCallback):
    """``Trainer(..., callbacks=[RecordCheckpoints("runs/reviews")])``.

    every: steps of the optimizer from checkpoint to checkpoint, one an epoch if it is not given. optimizer_state: write
    it beside each, for ``--preconditioner adam``. ``trainer.train(resume_from_checkpoint=...)`` resumes the recording;
    in an empty folder it begins there. A checkpoint's weights wait for its loss on the CPU.
    """

    def __init__(self, folder: str | Path, *, every: int | None = None, optimizer_state: bool = False) -> None:
        self._recording = TrainerRecording(folder, every=every, optimizer_state=optimizer_state)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start a recording, or resume it where the training does."""
        self._recording.abandon()
        if state.is_world_process_zero:
            self._recording.begin(
                kwargs["model"],
                kwargs["optimizer"],
                steps_per_epoch=steps_per_epoch(
                    _length(kwargs.get("train_dataloader")), args.gradient_accumulation_steps
                ),
                step=state.global_step,
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the checkpoint of the step before, now that its loss was logged if it is at all."""
        self._recording.save_if_due()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the weights of a checkpoint: its loss is logged later, and others may be put in before."""
        self._recording.count_to(state.global_step)
        self._recording.hold_if_due()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the weights: if training ends here, the Trainer may load its best ones before it says so."""
        self._recording.hold()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note the mean loss of the steps since the log before."""
        if logs is not None and "loss" in logs:
            self._recording.note(logs["loss"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Make the step of the Trainer's own checkpoint one to resume at."""
        self._recording.flush()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the last checkpoint."""
        self._recording.finish()


def _length(loader: Any) -> int | None:
    """Return the batches of an epoch, None where they are not known."""
    try:
        return len(loader)
    except TypeError:
        return None
