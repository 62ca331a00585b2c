"""Recording what Lightning's Trainer trains, as one of its callbacks."""

from pathlib import Path
from typing import Any

from torch import nn

from indexer.errors import MissingExtraError, RecordError
from indexer.record.callback import TrainerRecording, steps_per_epoch

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as exc:
    raise MissingExtraError(
        "recording from Lightning's Trainer needs lightning: pip install 'proponent[lightning]'"
    ) from exc


class RecordCheckpoints(Callback):
    """``Trainer(..., callbacks=[RecordCheckpoints("runs/digits", network="net")])``.

    network: the attribute of the module that holds the network, so that weights have the names of a task with the bare
    network; without it the whole module is recorded. every: steps of the optimizer from checkpoint to checkpoint, one
    an epoch if it is not given. optimizer_state: write it beside each, for ``--preconditioner adam``.
    ``trainer.fit(..., ckpt_path=...)`` resumes the recording; in an empty folder it begins there.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        network: str | None = None,
        every: int | None = None,
        optimizer_state: bool = False,
    ) -> None:
        self._network = network
        self._recording = TrainerRecording(folder, every=every, optimizer_state=optimizer_state)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a recording, or resume it where the training does.

        Raises:
            RecordError: the module has several optimizers or none.
        """
        if len(trainer.optimizers) != 1:
            raise RecordError(
                f"the module has {len(trainer.optimizers)} optimizers; expected one: with several, no step of one "
                "accounts for the model. Record each part with indexer.CheckpointRecorder"
            )
        if trainer.is_global_zero:
            self._recording.begin(
                _network(pl_module, self._network),
                trainer.optimizers[0],
                steps_per_epoch=steps_per_epoch(trainer.num_training_batches, trainer.accumulate_grad_batches),
                step=trainer.global_step,
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """End the recording before batches that train nothing.

        After averaging weights, `StochasticWeightAveraging` runs an epoch for the statistics of batch normalization,
        without gradients, and with a step of the optimizer at its end all the same.
        """
        if getattr(trainer.fit_loop, "_skip_backward", False):
            self._recording.finish()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss of the batch, and save if it is time."""
        self._recording.count_to(trainer.global_step)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        # Lightning divides it by the batches of a step
        self._recording.note(None if loss is None else loss * trainer.accumulate_grad_batches)
        self._recording.save_if_due()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights: if training ends here, averaged ones may be put in before Lightning says so."""
        self._recording.hold()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the step of Lightning's own checkpoint one to resume at."""
        self._recording.flush()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last checkpoint."""
        self._recording.finish()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop without a checkpoint."""
        self._recording.abandon()


def _network(module: nn.Module, name: str | None) -> nn.Module:
    """Return the part of a module that is recorded.

    Raises:
        RecordError: it has no module of that name.
    """
    if name is None:
        return module
    try:
        return module.get_submodule(name)
    except AttributeError as exc:
        there = ", ".join(repr(child) for child, _ in module.named_children())
        raise RecordError(f"network = {name!r}: expected a module of {type(module).__name__}; it has {there}") from exc
