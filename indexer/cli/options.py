"""Options that several commands take: which checkpoints of a run, and how they weigh."""

from pathlib import Path
from typing import Annotated

import typer

from indexer.errors import BuildError

DEFAULT_ETA = "learning_rate"

Checkpoints = Annotated[
    Path, typer.Option(help="The run: a folder of CheckpointRecorder, of a Trainer, of Lightning, or of files.")
]
Choose = Annotated[
    int | None, typer.Option(help="Take so many checkpoints of the run, as `proponent checkpoints choose` does.")
]
Steps = Annotated[str | None, typer.Option(help="Take the checkpoints at these steps: '71,142,355'.")]
Eta = Annotated[
    str | None,
    typer.Option(
        help="What a checkpoint weighs: 'learning_rate' (default), that of the last step before it, or 'interval', "
        "those of all steps since the checkpoint before."
    ),
]


def parse_steps(option: str | None) -> tuple[int, ...]:
    """Return the steps that an option such as ``71,142`` names, none without it.

    Raises:
        BuildError: the option is not of that form.
    """
    if option is None:
        return ()
    parts = [part.strip() for part in option.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise BuildError(f"--steps {option!r}: expected whole numbers with commas between, as in '71,142,355'")
    return tuple(map(int, parts))
