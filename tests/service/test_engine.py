"""The warm engine: which indexes it opens, that it answers on one thread of its own, and that it closes."""

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer import Ask, KnownExample, Question, Task
from indexer.errors import TaskError, TaskMismatchError, UnknownExampleError, UnknownIndexError
from indexer.index.versions import open_version
from service.engine import Answer, Engine, WarmEngine, open_engine
from tests.service import regression
from tests.service.fake import FakeEngine

TASK = "from tests.tiny import tiny_task\ntask = tiny_task()\n"
SEVENTEEN = Question(KnownExample("test", "17"), k=3)


@pytest.fixture
def warm(ask: Ask) -> Iterator[WarmEngine]:
    engine = WarmEngine({"tiny": ask})
    yield engine
    engine.close()


@pytest.fixture
def task_file(tmp_path: Path) -> str:
    (tmp_path / "digits.py").write_text(TASK)
    return f"{tmp_path / 'digits.py'}:task"


def test_both_engines_keep_the_protocol(warm: WarmEngine, engine: FakeEngine) -> None:
    engines: list[Engine] = [warm, engine]  # mypy compares the signatures, isinstance the names
    assert all(isinstance(each, Engine) for each in engines)


def test_an_engine_says_what_it_serves(warm: WarmEngine, index_folder: Path) -> None:
    assert warm.names() == ["tiny"]
    assert warm.version("tiny") == open_version(index_folder)
    assert warm.explains("tiny") == ["loss"]
    assert warm.examples("tiny").find("test", "17").id == "17"


def test_names_are_sorted(ask: Ask) -> None:
    assert WarmEngine({"b": ask, "a": ask, "c": ask}).names() == ["a", "b", "c"]


def test_an_unknown_name_is_refused_everywhere(warm: WarmEngine) -> None:
    text = "no index of that name is served; GET /v1/indexes lists them"
    for ask_for in (warm.version, warm.explains, warm.examples):
        with pytest.raises(UnknownIndexError, match=text):
            ask_for("nope")
    with pytest.raises(UnknownIndexError, match=text):
        asyncio.run(warm.query("nope", SEVENTEEN))


def test_many_questions_at_once_are_answered_one_after_the_other_on_one_thread(
    warm: WarmEngine, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    busy = threading.Lock()
    query = Ask.query

    def watched(self: Ask, question: Question) -> object:
        assert busy.acquire(blocking=False), "two questions at the same time"
        threads.append(threading.current_thread().name)
        try:
            return query(self, question)
        finally:
            busy.release()

    monkeypatch.setattr(Ask, "query", watched)
    questions = [Question(KnownExample("test", str(id % 3)), k=3) for id in range(12)]

    async def all_at_once() -> list[Answer]:
        return await asyncio.gather(*(warm.query("tiny", question) for question in questions))

    answers = asyncio.run(all_at_once())
    assert len(threads) == 12
    assert set(threads) == {"engine_0"}
    for question, answer in zip(questions, answers, strict=True):
        assert answer.ranking.proponents == query(ask, question).proponents
    assert all(answer.queue_ms >= 0 for answer in answers)
    assert answers[-1].queue_ms > answers[0].queue_ms  # the last waited for eleven others


def test_an_error_of_a_question_leaves_the_engine_working(warm: WarmEngine) -> None:
    with pytest.raises(UnknownExampleError):
        asyncio.run(warm.query("tiny", Question(KnownExample("test", "nope"))))
    assert len(asyncio.run(warm.query("tiny", SEVENTEEN)).ranking.opponents) == 3


def test_a_closed_engine_answers_no_more(ask: Ask) -> None:
    engine = WarmEngine({"tiny": ask})
    engine.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        asyncio.run(engine.query("tiny", SEVENTEEN))


def test_a_folder_of_indexes_is_opened_and_each_answers_a_first_question(
    tmp_path: Path, index_folder: Path, task_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b", "a"):
        shutil.copytree(index_folder, tmp_path / "indexes" / name)
    (tmp_path / "indexes" / "no index").mkdir()
    (tmp_path / "indexes" / "readme.txt").touch()
    warmed: list[str] = []
    query = Ask.query

    def watched(self: Ask, question: Question) -> object:
        warmed.append(self.index.version.name)
        return query(self, question)

    monkeypatch.setattr(Ask, "query", watched)
    engine = open_engine(tmp_path / "indexes", task_file)
    assert engine.names() == warmed == ["a", "b"]
    engine.close()


def test_one_index_may_be_given_itself(index_folder: Path, task_file: str) -> None:
    engine = open_engine(index_folder, task_file)
    assert engine.names() == ["tiny"]
    engine.close()


def test_a_regression_is_warmed_up_at_a_target_of_its_own(tmp_path: Path) -> None:
    folder = regression.regression_index(tmp_path)
    engine = open_engine(folder, "tests.service.regression:task")
    question = Question(KnownExample("train", "0"), target=0.5, k=2)
    assert len(asyncio.run(engine.query("regression", question)).ranking.proponents) == 2
    engine.close()


def test_a_folder_without_an_index_is_refused(tmp_path: Path, task_file: str) -> None:
    with pytest.raises(UnknownIndexError, match="holds no finished index; build one there with `proponent build`"):
        open_engine(tmp_path, task_file)


def test_an_index_of_another_task_is_refused(index_folder: Path, tmp_path: Path, task: Task) -> None:
    (tmp_path / "fewer.py").write_text(TASK.replace("tiny_task()", "tiny_task(rows=200)"))
    with pytest.raises(TaskMismatchError, match="has training examples up to row 299; the task has 200 rows"):
        open_engine(index_folder, f"{tmp_path / 'fewer.py'}:task")
    with pytest.raises(TaskError, match="has no name 'nope'"):
        open_engine(index_folder, f"{tmp_path / 'fewer.py'}:nope")
