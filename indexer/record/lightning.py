"""Recording what Lightning's Trainer trains, as one of its callbacks."""

import math
from pathlib import Path
from typing import Any

from torch import nn

from indexer.errors import MissingExtraError, RecordError
from indexer.record.recorder import CheckpointRecorder

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
    ``trainer.fit(..., ckpt_path=...)`` resumes the recording.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        network: str | None = None,
        every: int | None = None,
        optimizer_state: bool = False,
    ) -> None:
        self._folder = Path(folder)
        self._network = network
        self._every = every
        self._optimizer_state = optimizer_state
        self._recorder: CheckpointRecorder | None = None

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
        if not trainer.is_global_zero:
            return
        self._recorder = CheckpointRecorder(
            self._folder,
            _network(pl_module, self._network),
            trainer.optimizers[0],
            steps_per_epoch=_steps_per_epoch(trainer),
            every=self._every,
            optimizer_state=self._optimizer_state,
            step=trainer.global_step,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss of the batch, and save if it is time."""
        if self._recorder is None:
            return
        self._recorder.catch_up(trainer.global_step)
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        # Lightning divides it by the batches of a step
        self._recorder.record(None if loss is None else loss * trainer.accumulate_grad_batches)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the step of Lightning's own checkpoint one to resume at."""
        if self._recorder is not None:
            self._recorder.flush()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last checkpoint."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop without a checkpoint."""
        if self._recorder is not None:
            self._recorder.detach()
            self._recorder = None


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


def _steps_per_epoch(trainer: Trainer) -> int | None:
    """Return the optimizer's steps an epoch; None where the loader does not know its length."""
    batches = trainer.num_training_batches
    return None if math.isinf(batches) else max(1, math.ceil(batches / trainer.accumulate_grad_batches))
