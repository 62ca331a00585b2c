"""A small index and copies of it to edit."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.indexer.editing.small import small_index, small_run


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished index of the first rows of the small task, coded. Read-only: copy it to edit it."""
    run = small_run(tmp_path_factory.mktemp("small-run"))
    return small_index(run, tmp_path_factory.mktemp("small") / "index", {"name": "pca", "bytes": 60})


@pytest.fixture
def new_copy(small_folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a copy of the small index under a name."""
    return lambda name: Path(shutil.copytree(small_folder, tmp_path / name))


@pytest.fixture
def folder(new_copy: Callable[[str], Path]) -> Path:
    """A copy of the small index."""
    return new_copy("index")
