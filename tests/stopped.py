"""A build that is interrupted, with its journal left behind."""

from pathlib import Path

import pytest

from indexer import BuildSpec, Task, build
from indexer.building.journal import Journal
from tests.micro import BATCH


def stop(task: Task, spec: BuildSpec, folder: Path, rows: int = 2 * BATCH + 1) -> None:
    """Build until the pass is past so many rows."""

    def dies(stage: str, done: int, total: int) -> None:
        if stage == "vectors" and done >= rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(task, spec, folder, dies)
    assert Journal(folder).plan() is not None
