"""Fixtures that every test may use, and shape checks: jaxtyping's annotations are enforced while tests run."""

from jaxtyping import install_import_hook

install_import_hook("indexer", "beartype.beartype")

import shutil  # noqa: E402
from collections.abc import Callable  # noqa: E402 - the hook must come first
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from indexer import Ask, BuildSpec, Task, build  # noqa: E402
from tests.tiny import tiny_run, tiny_task  # noqa: E402


@pytest.fixture
def rng() -> np.random.Generator:
    """The one source of randomness of a test."""
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Model initialisation in tests is repeatable; one thread, because tiny models wait for a second one in vain."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def task() -> Task:
    """300 real digits and a small convolutional network with every kind of path: see `tests.tiny`."""
    return tiny_task()


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, task: Task) -> Path:
    """A folder with three checkpoints of the tiny task."""
    return tiny_run(task, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def index_folder(tmp_path_factory: pytest.TempPathFactory, task: Task, run: Path) -> Path:
    """A finished index of the tiny task with exact vectors. Read-only: copy it to change it."""
    spec = BuildSpec(run, projection={"name": "identity"}, batch_size=64)
    return build(task, spec, tmp_path_factory.mktemp("indexes") / "tiny").folder


@pytest.fixture
def ask(index_folder: Path, task: Task) -> Ask:
    """The tiny index, open."""
    return Ask.open(index_folder, task)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Return a function that copies a folder to where a test may break it."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / folder.name))
