"""Answers against a float64 loop of backward(), and every question that is refused."""

import base64
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from indexer import Ask, BuildSpec, GivenExample, Hit, KnownExample, Question, Ranking, Task, build
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.errors import (
    CorruptIndexError,
    InputFormatError,
    QuestionError,
    TaskMismatchError,
    UnknownExampleError,
    UnknownLabelError,
    UnsupportedExplainError,
)
from indexer.recipes.train import Schedule, train
from indexer.task import Examples, read_rows
from tests.chosen import chosen
from tests.reference import exact_parts, exact_self_influence, top_k
from tests.tiny import LABELS, cross_entropy, tiny_model

QUERIES = 100
NEAR_TIE = 1e-5  # relative: scores closer than float32 gradients can tell apart
FLOAT32 = 1e-4  # relative: float32 gradients against float64; small scores are differences of larger products

IDENTITY = {"name": "identity"}


def asked_about(task: Task) -> Examples:
    assert task.test is not None
    return task.test


@pytest.fixture(scope="module")
def predicted(task: Task, run: Path) -> list[int]:
    """What the last checkpoint says of each test digit."""
    assert task.test is not None
    module = tiny_model()
    module.load_state_dict(read_weights(run / "epoch-06.safetensors"))
    outputs: Tensor = module(read_rows(task.test, range(QUERIES))[0])
    return outputs.argmax(1).tolist()


def asked_label(row: int, predicted: Sequence[int]) -> str | None:
    """Half of the questions give a label, every class in turn; the others take the predicted one."""
    return LABELS[row // 2 % 10] if row % 2 else None


@pytest.fixture(scope="module")
def exact(task: Task, run: Path, predicted: list[int]) -> np.ndarray:
    """Scores [checkpoints, queries, training examples] of the questions, by the loop."""
    assert task.test is not None
    labels = [asked_label(row, predicted) for row in range(QUERIES)]
    targets = [predicted[row] if label is None else int(label) for row, label in enumerate(labels)]
    asked = read_rows(task.test, range(QUERIES))[0], torch.tensor(targets)
    checkpoints = open_run(run).checkpoints
    states = [read_weights(checkpoint.path) for checkpoint in checkpoints]
    etas = [checkpoint.learning_rates[0] for checkpoint in checkpoints]
    train = read_rows(task.train, range(len(task.train)))
    parts: np.ndarray = exact_parts((tiny_model(), cross_entropy), states, etas, asked, train).numpy()
    return parts


def assert_same_order(hits: Sequence[Hit], expected: Sequence[tuple[str, float]], scores: np.ndarray) -> None:
    """The same ids in the same order, near ties aside."""
    assert len({hit.id for hit in hits}) == len(hits) == len(expected)
    for hit, (id, score) in zip(hits, expected, strict=True):
        assert hit.id == id or abs(scores[int(hit.id)] - score) < NEAR_TIE * abs(score)


def test_answers_are_those_of_the_loop(ask: Ask, exact: np.ndarray, predicted: list[int]) -> None:
    ids = [str(row) for row in range(exact.shape[2])]
    for row in range(QUERIES):
        label = asked_label(row, predicted)
        ranking = ask.query(Question(KnownExample("test", str(row)), label=label))
        assert ranking.query.predicted == LABELS[predicted[row]]
        assert ranking.query.label == (label or LABELS[predicted[row]])
        assert ranking.query.label_source == ("predicted" if label is None else "given")
        scores = exact[:, row].sum(0)
        assert_same_order(ranking.proponents, top_k(torch.from_numpy(scores), 10, ids), scores)
        opposed = [(id, -score) for id, score in top_k(torch.from_numpy(-scores), 10, ids)]
        assert_same_order(ranking.opponents, opposed, scores)
        for hit in (*ranking.proponents, *ranking.opponents):
            assert hit.score == pytest.approx(scores[int(hit.id)], rel=FLOAT32)
            assert sum(hit.per_checkpoint) == pytest.approx(hit.score, rel=1e-12)
            largest = abs(exact[:, row, int(hit.id)]).max()
            assert hit.per_checkpoint == pytest.approx(exact[:, row, int(hit.id)], rel=FLOAT32, abs=FLOAT32 * largest)


def test_hits_say_what_they_are(ask: Ask, task: Task, run: Path) -> None:
    states = [read_weights(checkpoint.path) for checkpoint in open_run(run).checkpoints]
    model = (tiny_model(), cross_entropy)
    ranking = ask.query(Question(KnownExample("test", "3"), k=5))
    assert [hit.rank for hit in ranking.proponents] == [hit.rank for hit in ranking.opponents] == [1, 2, 3, 4, 5]
    rows = [int(hit.id) for hit in ranking.proponents]
    batch = read_rows(task.train, rows)
    expected = exact_self_influence(model, states, [0.1] * 3, batch).sum(1).tolist()
    for hit, target, self_influence in zip(ranking.proponents, batch[1].tolist(), expected, strict=True):
        assert (hit.split, hit.label) == ("train", LABELS[target])
        assert hit.self_influence == pytest.approx(self_influence, rel=FLOAT32)


def test_an_answer_says_where_it_comes_from(ask: Ask) -> None:
    ranking = ask.query(Question(KnownExample("test", "0")))
    version = ask.index.version
    assert (ranking.index, ranking.version, ranking.fingerprint) == ("tiny", version.version, version.fingerprint)
    assert (ranking.method, ranking.explain, ranking.exact, ranking.exhaustive) == ("tracin", "loss", True, True)
    assert set(ranking.milliseconds) == {"decode", "gradients", "search", "fetch", "total"}
    stages = [value for stage, value in ranking.milliseconds.items() if stage != "total"]
    assert 0 < sum(stages) <= ranking.milliseconds["total"]


def test_the_facts_are_those_of_the_last_checkpoint(ask: Ask, task: Task, run: Path) -> None:
    assert task.test is not None
    module = tiny_model()
    module.load_state_dict(read_weights(run / "epoch-06.safetensors"))
    outputs = module(read_rows(task.test, [4])[0])
    facts = ask.query(Question(KnownExample("test", "4"), label="8")).query
    assert list(facts.probabilities) == LABELS
    assert list(facts.probabilities.values()) == pytest.approx(outputs[0].softmax(0).tolist(), rel=FLOAT32)
    assert facts.loss == pytest.approx(-outputs[0].log_softmax(0)[8].item(), rel=FLOAT32)


def without_times(ranking: Ranking) -> Ranking:
    return replace(ranking, milliseconds={})


def test_the_same_question_has_the_same_answer(ask: Ask, index_folder: Path, task: Task) -> None:
    question = Question(KnownExample("test", "11"), label="3")
    first = ask.query(question)
    ask.query(Question(KnownExample("test", "12")))
    again, elsewhere = ask.query(question), Ask.open(index_folder, task).query(question)
    assert without_times(first) == without_times(again) == without_times(elsewhere)


def test_a_given_image_is_answered_as_the_example_that_it_shows(ask: Ask) -> None:
    preview = ask.index.examples.preview("test", "7")
    given = GivenExample({"data": base64.b64encode(preview.data).decode()})
    one, other = (ask.query(Question(example, label="2")) for example in (KnownExample("test", "7"), given))
    assert without_times(one) == without_times(other)


def test_training_examples_can_be_asked_about(ask: Ask) -> None:
    example = ask.index.examples.find("train", "5")
    ranking = ask.query(Question(KnownExample("train", "5"), label=example.label, k=300))
    [own] = [hit for hit in ranking.proponents if hit.id == "5"]
    assert own.score == pytest.approx(own.self_influence, rel=FLOAT32)


def test_the_whole_training_set_can_be_ranked(ask: Ask) -> None:
    ranking = ask.query(Question(KnownExample("test", "1"), k=1000))
    scores = [hit.score for hit in ranking.proponents]
    assert sorted(int(hit.id) for hit in ranking.proponents) == list(range(300))
    assert scores == sorted(scores, reverse=True)
    assert [hit.score for hit in ranking.opponents] == scores[::-1]


def test_equal_scores_are_equal_and_ordered_by_id(task: Task, run: Path, tmp_path: Path) -> None:
    """Every digit fifteen times: its copies have one score, and come in the order of their ids at every k."""
    many, few = chosen(task.train, list(range(20)) * 15), chosen(task.train, range(20))
    repeated = replace(task, train=many, test=few)
    build(repeated, BuildSpec(run, projection=IDENTITY, batch_size=20), tmp_path / "index")
    ask = Ask.open(tmp_path / "index", repeated)
    copies = [sorted(str(digit + 20 * copy) for copy in range(15)) for digit in range(20)]
    for row, k in itertools.product(range(10), range(1, 40, 2)):
        ranking = ask.query(Question(KnownExample("test", str(row)), k=k))
        for hits in (ranking.proponents, ranking.opponents):
            for _, group in itertools.groupby(hits, key=lambda hit: int(hit.id) % 20):
                same = list(group)
                assert [hit.id for hit in same] == copies[int(same[0].id) % 20][: len(same)]
                assert len({hit.score for hit in same}) == 1


@pytest.mark.parametrize(
    ("question", "error", "expected"),
    [
        (Question(KnownExample("test", "0"), k=0), QuestionError, "k = 0: expected at least 1"),
        (Question(KnownExample("test", "0"), k=-3), QuestionError, "k = -3: expected at least 1"),
        (Question(KnownExample("test", "0"), label="cat"), UnknownLabelError, "unknown label; expected one of '0', '1"),
        (Question(KnownExample("test", "0"), label=""), UnknownLabelError, "unknown label; expected one of '0', '1'"),
        (Question(KnownExample("test", "0"), explain="score"), UnsupportedExplainError, "explains 'loss'; found 'sco"),
        (Question(KnownExample("test", "100")), UnknownExampleError, "no example of that split and id"),
        (Question(KnownExample("test", "-1")), UnknownExampleError, "no example of that split and id"),
        (Question(KnownExample("test", "00")), UnknownExampleError, "no example of that split and id"),
        (Question(KnownExample("valid", "0")), UnknownExampleError, "no example of that split and id"),
        (Question(KnownExample("test", "0"), target=1.0), QuestionError, "of a classification: expected a label, fou"),
        (Question(GivenExample({"data": "*"})), InputFormatError, "the image is not valid base64; send the bytes"),
        (Question(GivenExample({"data": "AAAA"})), InputFormatError, "the image cannot be decoded; send a whole PNG"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(
    ask: Ask, question: Question, error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected):
        ask.query(question)


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (lambda task: None, "the task has no example '7' in split 'test' any more"),
        (lambda task: chosen(asked_about(task), range(7)), "the task has no example '7' in split 'test' any more"),
        (
            lambda task: chosen(asked_about(task), range(99, -1, -1)),
            "example '7' of split 'test' is not what it was when the i",
        ),
    ],
    ids=["no split", "fewer", "others"],
)
def test_test_data_that_changed_are_refused_when_asked_about(
    index_folder: Path, task: Task, test: Callable[[Task], Examples | None], expected: str
) -> None:
    with pytest.raises(TaskMismatchError, match=expected):
        Ask.open(index_folder, replace(task, test=test(task))).query(Question(KnownExample("test", "7")))


def test_a_closed_index_answers_no_more(index_folder: Path, task: Task) -> None:
    ask = Ask.open(index_folder, task)
    ask.close()
    with pytest.raises(CorruptIndexError, match="closed database"):
        ask.index.examples.find("test", "0")


def square(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs[:, 0] - targets).square()


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory, task: Task) -> Ask:
    """How much ink a digit has, by a linear model of its four quarters."""
    folder = tmp_path_factory.mktemp("regression")
    inputs = read_rows(task.train, range(40))[0]
    data = TensorDataset(inputs, inputs.mean((1, 2, 3)))
    ink = Task(
        model=lambda: nn.Sequential(nn.AvgPool2d(14), nn.Flatten(), nn.Linear(4, 1)),
        loss=square,
        train=data,
        test=chosen(data, range(5)),
        codec=task.codec,
    )
    train(ink, Schedule(epochs=2, keep=(1, 2), learning_rate=0.05), folder / "run", lambda stage, done, total: None)
    build(ink, BuildSpec(folder / "run", projection=IDENTITY), folder / "index")
    return Ask.open(folder / "index", ink)


def test_a_regression_is_explained_at_its_target(regression: Ask) -> None:
    task = regression.task
    states = [
        read_weights(checkpoint.path) for checkpoint in open_run(regression.index.version.folder / "../run").checkpoints
    ]
    train = read_rows(task.train, range(40))
    asked = train[0][:1], torch.tensor([0.5])
    scores = exact_parts((task.model(), square), states, [0.05] * 2, asked, train).sum(0)[0]
    ranking = regression.query(Question(KnownExample("test", "0"), target=0.5))
    ids = [str(row) for row in range(40)]
    assert_same_order(ranking.proponents, top_k(scores, 10, ids), scores.numpy())
    assert [hit.score for hit in ranking.proponents] == pytest.approx(
        [score for _, score in top_k(scores, 10, ids)], rel=FLOAT32
    )
    facts = ranking.query
    assert (facts.label, facts.label_source, facts.predicted, facts.probabilities) == ("0.5", "given", None, {})


@pytest.mark.parametrize(("label", "target"), [(None, None), ("5", None), ("5", 0.5)])
def test_a_regression_needs_a_target_and_no_label(regression: Ask, label: str | None, target: float | None) -> None:
    with pytest.raises(QuestionError, match="this index is of a regression: expected a target and no label"):
        regression.query(Question(KnownExample("test", "0"), label=label, target=target))


@pytest.mark.parametrize("target", [float("nan"), float("inf"), 1e39])
def test_a_target_that_gives_no_finite_gradient_is_refused(regression: Ask, target: float) -> None:
    with pytest.raises(QuestionError, match="finite"):
        regression.query(Question(KnownExample("test", "0"), target=target))
