"""The application in process: over a small fake engine, and over real indexes of the tiny task."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from fastapi import FastAPI
from starlette.testclient import TestClient
from structlog.typing import EventDict

from indexer import Ask, Task
from service.app import create_app
from service.engine import WarmEngine
from service.settings import Settings
from tests.service.fake import FakeEngine


@pytest.fixture(autouse=True)
def log() -> Iterator[list[EventDict]]:
    """What the service logs meanwhile, line by line."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture(scope="session")
def settings() -> Settings:
    """Small limits, so that tests can pass them."""
    return Settings(indexes=Path("indexes"), task="digits.py:task", max_k=300, max_body_bytes=5000, page_size=40)


@pytest.fixture
def engine(tmp_path: Path) -> FakeEngine:
    """An engine without a model."""
    return FakeEngine(tmp_path)


@pytest.fixture
def app(engine: FakeEngine, settings: Settings) -> FastAPI:
    """The application over the fake engine."""
    return create_app(lambda: engine, settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the fake engine; what the server did not catch is raised in the test."""
    with TestClient(app) as client:
        yield client


@pytest.fixture(scope="session")
def served(index_folder: Path, task: Task, settings: Settings) -> Iterator[TestClient]:
    """A client of the tiny index, with its model."""
    engine = WarmEngine({"tiny": Ask.open(index_folder, task)})
    with TestClient(create_app(lambda: engine, settings)) as client:
        yield client
