"""Which checkpoints of a run a build takes: all, those at given steps, or those that the rule of appendix D chooses."""

from dataclasses import replace
from typing import Any

from indexer.building.spec import BuildSpec
from indexer.checkpoints.choose import choose
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.run import Run


def selected(spec: BuildSpec) -> tuple[Run, dict[str, Any] | None]:
    """Return the run with the checkpoints of the spec, and how they were chosen, for the manifest; None: all of them.

    Raises:
        CheckpointError: there is no such run or step, or the loss of the run gives no choice.
    """
    run = open_run(spec.checkpoints)
    told = {"of": len(run.checkpoints)}
    if spec.choose is not None:
        choice = choose(run, spec.choose)
        rule = {"rule": "steady decrease of the loss", "k": spec.choose, **told, "notes": list(choice.notes)}
        return replace(run, checkpoints=choice.chosen), rule
    if spec.steps:
        return run.at(spec.steps), {"rule": "given steps", **told}
    return run, None
