"""Recording a training run, in three lines of the loop that trains:

    recorder = CheckpointRecorder("runs/digits", model, optimizer, steps_per_epoch=len(loader))
    for inputs, targets in loader:
        loss = ...
        loss.backward(); optimizer.step(); scheduler.step(); optimizer.zero_grad()
        recorder.record(loss)
    recorder.close()

Rates are read by a hook in ``optimizer.step()``: after ``scheduler.step()`` they would be the next step's. Steps are
counted as the optimizer makes them, so that batches whose gradients accumulate are one step, and a step that a
GradScaler skips is none. Files are written whole or not at all, the listing last.
"""

from pathlib import Path
from types import TracebackType
from typing import Any

import torch.distributed
from torch import Tensor, nn
from torch.optim import Optimizer

from indexer.checkpoints.optimizer import describe_optimizer
from indexer.errors import RecordError
from indexer.record import model as parts
from indexer.record.recording import Recording, State
from indexer.record.resume import nothing_at, resume_at
from indexer.record.steps import Steps


class CheckpointRecorder:
    """Writes a run's checkpoints, the learning rates that it used and its losses, as ``proponent build`` reads them.

    steps_per_epoch: steps of the optimizer, so batches over accumulated ones. every: steps from checkpoint to
    checkpoint, one an epoch if it is not given; with 0 only ``save()`` writes. optimizer_state: write it beside each
    checkpoint, for ``--preconditioner adam``. step: where a training goes on that was recorded here before; 0 is a new
    one. Where several processes train, the one of rank 0 records, with the losses of its own batches.

    >>> import tempfile
    >>> net = nn.Linear(2, 1)
    >>> sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder, CheckpointRecorder(folder, net, sgd, every=1) as recorder:
    ...     loss = net(torch.ones(2)).sum()
    ...     loss.backward(); sgd.step()
    ...     recorder.record(loss)
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['checkpoints.json', 'step-000001.history.safetensors', 'step-000001.safetensors']
    """

    def __init__(  # noqa: PLR0913 - what is recorded, and four settings that do not depend on each other
        self,
        folder: str | Path,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        steps_per_epoch: int | None = None,
        every: int | None = None,
        optimizer_state: bool = False,
        step: int = 0,
    ) -> None:
        self._every = _checked_every(every, steps_per_epoch)
        self._steps_per_epoch = steps_per_epoch
        self._optimizer_state = optimizer_state
        self._model, self._optimizer = parts.unwrapped(model), parts.unwrapped_optimizer(optimizer)
        self._groups = parts.group_names(self._model, self._optimizer)
        parts.check_recordable(self._model)
        self._writes = _is_first_process()
        recorded = resume_at(Path(folder), step, len(self._groups)) if self._writes else nothing_at(step)
        self._recording = Recording(Path(folder), recorded)
        self._steps = Steps(recorded.after, recorded.since)
        self._hook = self._optimizer.register_step_post_hook(self._note_step) if self._writes else None
        self._open = True

    @property
    def step(self) -> int:
        """The number of steps made; save it with your own state, to resume with."""
        return self._steps.last

    def record(self, loss: Tensor | float | int | None) -> None:
        """Note the loss of a batch, after ``optimizer.step()`` where the batch ends a step, and save if it is time.

        The loss stays on its device until a checkpoint is saved; NaN and infinity are kept as they are. None is for a
        batch without a loss.

        Raises:
            RecordError: the loss is not one number, or the recorder is closed.
        """
        self.note(loss)
        self.save_if_due()

    def note(self, loss: Tensor | float | int | None) -> None:
        """Note a loss, the mean since the one noted before, and save nothing yet.

        Raises:
            RecordError: the loss is not one number, or the recorder is closed.
        """
        self._check_open()
        if isinstance(loss, Tensor):
            if loss.numel() != 1:
                raise RecordError(
                    f"record() expects the loss of the batch, one number; found a tensor of shape {tuple(loss.shape)}. "
                    "Give the mean that you call backward() on"
                )
            loss = loss.detach().clone()
        if self._writes:
            self._steps.loss(loss)

    def save_if_due(self) -> None:
        """Save a checkpoint where ``every`` steps are over.

        Raises:
            RecordError: the recorder is closed.
        """
        self._check_open()
        if self._every and self.step // self._every > self._steps.after // self._every:
            self.save()

    def save(self, name: str | None = None) -> None:
        """Save a checkpoint now, as ``name``.safetensors; nothing where no step was made since the last one.

        Raises:
            RecordError: the name is no plain file name or is taken, or the recorder is closed.
        """
        self._check_open()
        stem = self._recording.name(name, self.step)
        if self._writes and self.step > self._steps.after:
            state = State(
                parts.weights(self._model),
                parts.optimizer_bytes(self._optimizer, self._groups) if self._optimizer_state else None,
                None if self._steps_per_epoch is None else self.step / self._steps_per_epoch,
            )
            self._recording.add(stem, state, self._steps, self._about())
            self._steps.restart()

    def flush(self) -> None:
        """Write the steps since the last checkpoint, without one; beside your own save, so that it can be resumed.

        Raises:
            RecordError: the recorder is closed.
        """
        self._check_open()
        if self._writes:
            self._recording.keep(self._steps.history(), self._about())

    def catch_up(self, step: int) -> None:
        """Count steps up to this number, as a trainer does, which counts those that a GradScaler skipped as well."""
        while self._writes and self.step < step:
            self._steps.skipped(len(self._groups))

    def close(self) -> None:
        """Save a last checkpoint if steps were made since the last one and ``every`` is not 0, and stop."""
        if self._open and self._every:
            self.save()
        self.detach()

    def detach(self) -> None:
        """Stop without a last checkpoint, as after an error: the weights may be broken."""
        if self._hook is not None:
            self._hook.remove()
        self._open = False

    def __enter__(self) -> "CheckpointRecorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.detach()

    def _note_step(self, optimizer: Optimizer, *_: Any) -> None:
        if parts.was_skipped(optimizer):
            return
        if len(optimizer.param_groups) != len(self._groups):
            raise RecordError(
                f"the optimizer had {len(self._groups)} parameter groups when the recording began and has "
                f"{len(optimizer.param_groups)} now; give it all of them before, with a learning rate of zero while "
                "they are frozen"
            )
        self._steps.made(parts.rates_used(optimizer), parts.gradient_norm(optimizer))

    def _about(self) -> dict[str, Any]:
        return {
            "optimizer": describe_optimizer(self._optimizer),
            "steps_per_epoch": self._steps_per_epoch,
            "parameter_groups": self._groups,
        }

    def _check_open(self) -> None:
        if not self._open:
            raise RecordError(
                f"the recording in {str(self._recording.folder)!r} is closed; construct another recorder to go on"
            )


def _checked_every(every: int | None, steps_per_epoch: int | None) -> int:
    """Return the steps from checkpoint to checkpoint.

    Raises:
        RecordError: they are not known or out of range.
    """
    if every is None and steps_per_epoch is None:
        raise RecordError(
            "expected steps_per_epoch, the optimizer's steps an epoch (a checkpoint is saved after each), or every, "
            "the steps from checkpoint to checkpoint"
        )
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise RecordError(f"steps_per_epoch = {steps_per_epoch}: expected at least 1")
    if every is not None and every < 0:
        raise RecordError(f"every = {every}: expected a number of steps, or 0 to save with save() alone")
    return every if every is not None else steps_per_epoch or 0


def _is_first_process() -> bool:
    """Say whether this process writes: rank 0 where several train together."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0
