"""The losses of a run as one series of finite numbers, and from where on there are none.

They are the history's, or those of the checkpoints where the history has none. Single losses that are not finite are
dropped. NaN may be a loss, and also what was not noted at a step: at the end of a history it is taken for a loss, and
for the end of the training, if it lasts longer than any gap before.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from indexer.checkpoints.falling import MOST_BINS
from indexer.checkpoints.run import Run
from indexer.errors import ChoiceError


@dataclass(frozen=True, slots=True)
class Losses:
    """Finite losses at ascending steps; broken: the step from which on none is finite, or None."""

    steps: Int[np.ndarray, " s"]
    values: Float[np.ndarray, " s"]
    broken: int | None

    def near(self, steps: Float[np.ndarray, " c"]) -> Float[np.ndarray, " c"]:
        """Return the loss at steps: the one noted next, or of more than 200 the median of five about it; NaN for NaN.

        One of five may be of a bad batch; bad weights last.
        """
        reach = 2 if len(self.steps) > MOST_BINS else 0
        nearest = np.searchsorted(self.steps, steps).clip(max=len(self.steps) - 1)
        found = [float(np.median(self.values[max(i - reach, 0) : i + reach + 1])) for i in nearest.tolist()]
        return np.where(np.isnan(steps), np.nan, np.array(found))


def losses_of(run: Run) -> Losses:
    """Return the losses of a run.

    Raises:
        ChoiceError: there are no finite ones.
    """
    steps, values = run.history.steps, run.history.losses
    if np.isnan(values).all():
        own = {c.step: c.train_loss for c in run.checkpoints if c.step is not None and c.train_loss is not None}
        steps = np.array(sorted(own), dtype=np.int64)
        values = np.array([own[step] for step in sorted(own)], dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        found = f"has {len(values):,} losses, none of them finite" if np.isinf(values).any() else "notes no losses"
        raise ChoiceError(
            f"{str(run.folder)!r} {found}; expected losses that fall, as checkpoints are chosen by their decrease. "
            "Log the loss of every step (a Trainer with logging_steps=1; Lightning with a CSVLogger and "
            "log_every_n_steps=1), record the run with indexer.CheckpointRecorder, or name the checkpoints with "
            "`--steps`"
        )
    return Losses(steps[finite], values[finite], _broken(steps, values))


def _broken(steps: Int[np.ndarray, " s"], values: Float[np.ndarray, " s"]) -> int | None:
    finite = np.flatnonzero(np.isfinite(values))
    last = int(finite[-1])
    if last == len(steps) - 1:
        return None
    longest = int(np.diff(steps[finite], prepend=steps[0] - 1).max())
    may_be_unnoted = steps[-1] - steps[last] <= longest and not np.isinf(values[last + 1 :]).any()
    return None if may_be_unnoted else int(steps[last + 1])
