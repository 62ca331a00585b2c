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

The device is waited for when a checkpoint is saved, at ``flush()``, at every thousandth step, and where a GradScaler
calls a fused optimizer: at each step, which it may have skipped.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, SupportsFloat

import torch.distributed
from torch import Tensor, nn
from torch.optim import Optimizer

from indexer.errors import RecordError
from indexer.record.model import gradient_norm, rates_used, was_skipped
from indexer.record.numbers import Count, checked_every, checked_loss, count
from indexer.record.recording import Recording
from indexer.record.resume import nothing_at, resume_at
from indexer.record.steps import Steps
from indexer.record.subject import State, Subject

_LOSSES_WITHOUT_A_STEP = 10_000  # more than the batches of any step: gradients accumulate over hundreds at most


class CheckpointRecorder:
    """Writes a run's checkpoints, the learning rates that it used and its losses, as ``proponent build`` reads them.

    steps_per_epoch: steps of the optimizer, so batches over accumulated ones. every: steps from checkpoint to
    checkpoint, one an epoch if it is not given; with 0 only ``save()`` writes. optimizer_state: write it beside each
    checkpoint, for ``--preconditioner adam``. step: how many steps the training has made already: a folder that
    recorded them goes on, an empty one begins there; 0 is a new training.

    The optimizer has all its parameter groups from the beginning: after ``add_param_group`` the next step is refused.
    Of a model of PEFT every checkpoint has the whole state, the frozen base beside the adapter.
    Where several processes train, all count steps, and the one of rank 0 writes, with the losses of its own batches.

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
        steps_per_epoch: Count | None = None,
        every: Count | None = None,
        optimizer_state: bool = False,
        step: Count = 0,
    ) -> None:
        if steps_per_epoch is not None:
            steps_per_epoch = count(steps_per_epoch, "steps_per_epoch", 1, "a whole number of steps, at least 1")
        self._every = checked_every(every, steps_per_epoch)
        begins = count(step, "step", 0, "the number of steps that were made before, 0 in a new training")
        self._subject = Subject(model, optimizer, steps_per_epoch=steps_per_epoch, optimizer_state=optimizer_state)
        self._writes = _is_first_process()
        recorded = resume_at(Path(folder), begins, self._subject.about()) if self._writes else nothing_at(begins)
        self._recording = Recording(Path(folder), recorded)
        if self._writes:
            self._recording.prepare()
        self._steps = Steps(recorded.after, recorded.since)
        self._held: tuple[int, State] | None = None  # a step and what a checkpoint of it holds
        self._losses: int | None = 0  # how many there were before the first step, None after it
        self._hook = self._subject.optimizer.register_step_post_hook(self._note_step)
        self._open = True

    @property
    def step(self) -> int:
        """The number of steps made; save it with your own state, to resume with."""
        return self._steps.last

    @property
    def due(self) -> bool:
        """Whether ``every`` steps are over since a checkpoint was due before."""
        return bool(self._every) and self.step // self._every > self._steps.after // self._every

    def record(self, loss: Tensor | SupportsFloat | None) -> None:
        """Note the loss of a batch, after ``optimizer.step()`` where the batch ends a step, and save if it is time.

        The first loss after a step belongs to it, others to the step to come. Called *before* ``optimizer.step()``,
        it would give the first step the mean of the first two losses, and every later loss to the step before its own.
        The loss stays on its device for now; NaN and infinity are kept as they are. None is for a batch without one.

        Raises:
            RecordError: the loss is not one number, the recorder is closed, or the optimizer never makes a step.
        """
        self.note(loss)
        self.save_if_due()

    def note(self, loss: Tensor | SupportsFloat | None) -> None:
        """Note a loss, the mean since the one noted before, and save nothing yet.

        Raises:
            RecordError: the loss is not one number, the recorder is closed, or the optimizer never makes a step.
        """
        self._check_open()
        found = checked_loss(loss)
        if found is not None and self._losses is not None:
            self._losses += 1
            if self._losses >= _LOSSES_WITHOUT_A_STEP:
                self._check_steps()
        if self._writes:
            self._steps.loss(found)

    def save_if_due(self) -> None:
        """Save a checkpoint where ``every`` steps are over.

        Raises:
            RecordError: the recorder is closed.
        """
        self._check_open()
        if self.due:
            self.save()

    def hold(self) -> None:
        """Keep a copy of the weights as they are, for a checkpoint of this step that is saved when its loss is known.

        Trainers may put other weights into the model before it is: the best ones, or averaged ones.
        """
        if self._writes and self._every and self.step > self._steps.after and not self._holds():
            self._held = self.step, self._subject.state(self.step, copy=True)

    def save(self, name: str | None = None) -> None:
        """Save a checkpoint now, as ``name``.safetensors; nothing where no step was made since the last one.

        Raises:
            RecordError: the name is no plain file name or is taken, or the recorder is closed.
            OSError: a file cannot be written; the listing is as before, and the next checkpoint has all steps.
        """
        self._check_open()
        stem = self._recording.name(name, self.step)
        if self.step > self._steps.after:
            if self._writes:
                state = (
                    self._held[1]
                    if self._held is not None and self._holds()
                    else self._subject.state(self.step, copy=False)
                )
                self._recording.add(stem, state, self._steps, self._subject.about())
            else:
                self._steps.restart()
            self._held = None

    def flush(self) -> None:
        """Write the steps since the last checkpoint, without one; beside your own save, so that it can be resumed.

        Raises:
            RecordError: the recorder is closed.
        """
        self._check_open()
        if self._writes:
            self._recording.keep(self._steps.history(), self._subject.about())

    def catch_up(self, step: int) -> None:
        """Count steps up to this number, as a trainer does, which counts those that a GradScaler skipped as well."""
        while self.step < step:
            self._steps.skipped(len(self._subject.groups))

    def close(self) -> None:
        """Save a last checkpoint if steps were made since the last one and ``every`` is not 0, and stop.

        Raises:
            RecordError: losses were recorded, but the optimizer made no step.
        """
        try:
            if self._open:
                self._check_steps()
                if self._every:
                    self.save()
        finally:
            self.detach()

    def detach(self) -> None:
        """Stop without a last checkpoint, as after an error: the weights may be broken."""
        self._hook.remove()
        self._open, self._held = False, None

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
        if was_skipped(optimizer):
            return
        self._subject.check_groups()
        self._losses = self._held = None
        if self._writes:
            self._steps.made(rates_used(optimizer), gradient_norm(optimizer))
        else:
            self._steps.skipped(len(self._subject.groups))  # it is only counted

    def _holds(self) -> bool:
        return self._held is not None and self._held[0] == self.step

    def _check_open(self) -> None:
        if not self._open:
            raise RecordError(
                f"the recording in {str(self._recording.folder)!r} is closed; construct another recorder to go on"
            )

    def _check_steps(self) -> None:
        if self._losses:
            raise RecordError(
                f"{self._losses:,} losses were recorded and the optimizer made no step; is this the optimizer that "
                "trains? Construct the recorder with the one whose step() the training calls"
            )


def _is_first_process() -> bool:
    """Say whether this process writes: rank 0 where several train together."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not distributed or torch.distributed.get_rank() == 0
