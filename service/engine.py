"""The engine keeps open indexes warm and answers on one thread of its own: the only way from the service to torch."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from indexer import Ask, KnownExample, Question, Ranking, Task, load_task
from indexer.errors import TaskMismatchError, UnknownIndexError
from indexer.index.examples import Examples
from indexer.index.versions import IndexVersion, is_index


@dataclass(frozen=True, slots=True)
class Answer:
    """A ranking, and how long the question waited for its turn."""

    ranking: Ranking
    queue_ms: float


@runtime_checkable
class Engine(Protocol):
    """What the routes need of the machinery behind them."""

    def names(self) -> list[str]:
        """Return the names of the served indexes, sorted."""

    def version(self, name: str) -> IndexVersion:
        """Return the served version of an index.

        Raises:
            UnknownIndexError: no index of that name is served.
        """

    def explains(self, name: str) -> list[str]:
        """Return the quantities that an index explains."""

    def examples(self, name: str) -> Examples:
        """Return the table of examples of an index."""

    async def query(self, name: str, question: Question) -> Answer:
        """Answer a question."""

    def close(self) -> None:
        """Release everything."""


class WarmEngine:
    """Every index of a folder, opened with one task; questions are answered one after the other."""

    def __init__(self, asks: Mapping[str, Ask]) -> None:
        self._asks = dict(asks)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    def names(self) -> list[str]:
        """Return the names of the served indexes, sorted."""
        return sorted(self._asks)

    def version(self, name: str) -> IndexVersion:
        """Return the served version of an index; here and below an unknown name raises `UnknownIndexError`."""
        return self._ask(name).index.version

    def explains(self, name: str) -> list[str]:
        """Return the quantities that an index explains."""
        return sorted(self._ask(name).index.method.explains)

    def examples(self, name: str) -> Examples:
        """Return the table of examples of an index."""
        return self._ask(name).index.examples

    async def query(self, name: str, question: Question) -> Answer:
        """Answer on the engine's thread: models are used by one thread, torch and FAISS keep one pool each."""
        ask = self._ask(name)
        asked = time.perf_counter()

        def answer() -> Answer:
            waited = time.perf_counter() - asked
            return Answer(ask.query(question), 1000 * waited)

        return await asyncio.get_running_loop().run_in_executor(self._thread, answer)

    def close(self) -> None:
        """Wait for the question in work, then release the files."""
        self._thread.shutdown(wait=True)
        for ask in self._asks.values():
            ask.close()

    def _ask(self, name: str) -> Ask:
        if name not in self._asks:
            raise UnknownIndexError("no index of that name is served; GET /v1/indexes lists them")
        return self._asks[name]


def open_engine(indexes: Path, task_reference: str) -> WarmEngine:
    """Open every index of a folder, or the one index that the folder is, and ask each a first question.

    Raises:
        UnknownIndexError: the folder holds no index.
    """
    folders = [indexes] if is_index(indexes) else sorted(f for f in indexes.glob("*") if is_index(f))
    if not folders:
        raise UnknownIndexError(f"{str(indexes)!r} holds no finished index; build one there with `proponent build`")
    task = load_task(task_reference)
    asks = {folder.resolve().name: _opened(folder, task, alone=len(folders) == 1) for folder in folders}
    for ask in asks.values():
        _warm_up(ask, task)
    return WarmEngine(asks)


def _opened(folder: Path, task: Task, *, alone: bool) -> Ask:
    """Open one index of a folder.

    Raises:
        TaskMismatchError: it is of another task; with the way to serve one index alone.
    """
    try:
        return Ask.open(folder, task)
    except TaskMismatchError as exc:
        if alone:
            raise
        raise TaskMismatchError(f"{exc}. To serve one index alone, name it: `proponent serve {folder}`") from exc


def _warm_up(ask: Ask, task: Task) -> None:
    """The first pass pays for allocations and lazy initialisation; let no user pay for it."""
    first = ask.index.examples.listing("train", start=0, count=1)[0]
    target = float(first.label) if task.labels is None and not ask.at_own_targets else None
    ask.query(Question(KnownExample("train", first.id), target=target, k=1))
