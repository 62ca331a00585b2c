"""A training run as Proponent sees it, whatever wrote it: its checkpoints, its history, its optimizer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from indexer.checkpoints.history import History, history
from indexer.checkpoints.optimizer import Optimizer
from indexer.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights at one moment of a run.

    path: the file of the weights, or a folder of shards or of an adapter.
    learning_rates: of the last step before this moment, by parameter group; () where they are not known.
    rates_from: how they are known, where they were not noted at that very step; for people.
    train_loss: as noted nearest before. optimizer_state: a file that holds ``optimizer.state_dict()``.
    """

    path: Path
    learning_rates: tuple[float, ...] = ()
    step: int | None = None
    epoch: float | None = None
    train_loss: float | None = None
    optimizer_state: Path | None = None
    rates_from: str | None = None
    adapter: bool = False

    @property
    def name(self) -> str:
        """What to call it: the name of its file or folder."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """The parameters of one group of the optimizer, in its order.

    names: () where the run keeps none. shapes: of the state that the optimizer keeps for each, None where it keeps
    none; with them the names can often be found again.
    """

    names: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...] | None, ...] = ()

    @property
    def size(self) -> int:
        """How many parameters the group has."""
        return max(len(self.names), len(self.shapes))


@dataclass(frozen=True, slots=True)
class Run:
    """Checkpoints in training order, and what is known of the training that made them.

    kind: what wrote the folder, for people. groups: of the optimizer; () where all parameters have one rate.
    steps_per_epoch: steps of the optimizer, not batches. caveats: what a reader of scores must know.
    """

    folder: Path
    kind: str
    checkpoints: tuple[Checkpoint, ...]
    history: History = field(default_factory=lambda: history([]))
    groups: tuple[ParameterGroup, ...] = ()
    steps_per_epoch: float | None = None
    optimizer: Optimizer | None = None
    caveats: tuple[str, ...] = ()

    def at(self, steps: Sequence[int]) -> "Run":
        """Return the run with only the checkpoints at these steps, in training order.

        Raises:
            CheckpointError: there is none at one of them; those that there are are named.
        """
        known = [checkpoint.step for checkpoint in self.checkpoints]
        absent = [step for step in steps if step not in known]
        if absent:
            there = ", ".join(str(step) for step in known if step is not None) or "none: the run notes no steps"
            raise CheckpointError(f"{str(self.folder)!r} has no checkpoint at step {absent[0]}; it has {there}")
        return replace(self, checkpoints=tuple(c for c in self.checkpoints if c.step in set(steps)))

    def where(self, number: int) -> str:
        """Name a checkpoint by its number from 0, for messages."""
        return f"checkpoint {number + 1} of {len(self.checkpoints)} ({self.checkpoints[number].name!r})"
