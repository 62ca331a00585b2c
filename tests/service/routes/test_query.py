"""The question, over a fake engine for what is asked and refused, and over real indexes for what is answered."""

import base64
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from indexer import Ask, GivenExample, KnownExample, Question, Task
from indexer.checkpoints.folder import open_run
from indexer.checkpoints.weights import read_weights
from indexer.index.search.candidates import View
from indexer.methods.registry import METHODS
from indexer.task import read_rows
from service.app import create_app
from service.engine import WarmEngine
from service.settings import Settings
from tests import reference
from tests.service import regression
from tests.service.asking import DIGIT, asked, known, lasting, refused
from tests.service.fake import FakeEngine
from tests.tiny import LABELS, cross_entropy, tiny_model
from tests.toy import ToyKind, toy_index

FAKE = "/v1/indexes/fake/query"
NO_IMAGE = "the image cannot be decoded; send a whole PNG or JPEG file in base64"
NO_BASE64 = "the image is not valid base64; send the bytes of a PNG or JPEG file in base64"
WRONG_SIZE = "expected an image of 28 x 28 pixels (height x width)"
SINGLE = 1e-5  # of the highest score: gradients in float32, whose sums of a few hundred terms round at 1e-6
SERVED = 1e-4  # relative, a served score against the float64 loop: two float32 gradients and their product
NEAR_TIE = 1e-5  # relative: two rows this close may change places in float32
DOUBLE = 1e-12  # sums of three numbers in float64


def png(image: Image.Image, kind: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def test_a_request_becomes_a_question(client: TestClient, engine: FakeEngine) -> None:
    asked(client, FAKE, label="dog", k=7)
    asked(client, FAKE, example=known(2, "train"), target=0.5)
    asked(client, FAKE, example={"modality": "image", "data": "AAAA"}, view="normalised")
    image = GivenExample({"modality": "image", "data": "AAAA"})
    assert engine.asked == [
        Question(KnownExample("test", "17"), label="dog", k=7),
        Question(KnownExample("train", "2"), target=0.5),
        Question(image, view="normalised"),
    ]


def test_an_answer_is_written_as_it_was_given(client: TestClient) -> None:
    answer = asked(client, FAKE)
    media = "/v1/indexes/fake/examples/train/{}/media"
    first = {"rank": 1, "split": "train"}
    best = first | {"id": "2", "label": "cat", "score": 3.0, "percentile": 99.99, "self_influence": 4.0}
    worst = first | {"id": "0", "label": "dog", "score": -3.0, "percentile": None, "self_influence": None}
    assert lasting(answer) == {
        "index": {"name": "fake", "version": "1" * 16, "fingerprint": f"sha256:{'1' * 64}"},
        "query": {
            "label": "cat",
            "label_source": "predicted",
            "predicted": "cat",
            "probabilities": {"cat": 0.75, "dog": 0.25},
            "loss": 0.5,
        },
        "score": {"method": "fake method", "explain": "loss", "view": "dot", "exact": False},
        "search": {"exhaustive": True},
        "proponents": [best | {"per_checkpoint": [1.0, 2.0], "media_url": media.format(2)}],
        "opponents": [worst | {"per_checkpoint": [-1.0, -2.0], "media_url": media.format(0)}],
        "warnings": [],
    }
    stages = {"queue": 0.5, "decode": 1.0, "gradients": 2.0, "search": 3.0, "fetch": 4.0, "total": 10.5}
    assert answer.timing.model_dump() == {f"{stage}_ms": ms for stage, ms in stages.items()}


@pytest.mark.parametrize("directions", [["proponents"], ["opponents"], ["opponents", "proponents"]])
@pytest.mark.parametrize("include", [[], ["media"], ["per_checkpoint"], ["per_checkpoint", "media"]])
def test_only_what_is_wanted_is_sent(client: TestClient, directions: list[str], include: list[str]) -> None:
    body = {"example": DIGIT, "directions": directions, "include": include}
    answer = client.post(FAKE, json=body).json()
    assert {key for key in ("proponents", "opponents") if key in answer} == set(directions)
    for direction in directions:
        assert ("per_checkpoint" in answer[direction][0]) == ("per_checkpoint" in include)
        assert ("media_url" in answer[direction][0]) == ("media" in include)


def test_k_is_limited_and_the_limit_is_named(client: TestClient, engine: FakeEngine) -> None:
    assert refused(client, FAKE, k=301) == (422, "k: expected at most 300 (max_k)")
    assert refused(client, FAKE, k=10**30) == (422, "k: expected at most 300 (max_k)")
    assert engine.asked == []


def test_an_unknown_index_is_a_404(client: TestClient) -> None:
    where = "/v1/indexes/nope/query"
    assert refused(client, where) == (404, "no index of that name is served; GET /v1/indexes lists them")


def test_another_modality_than_the_indexs_is_refused(tmp_path: Path, settings: Settings) -> None:
    with TestClient(create_app(lambda: FakeEngine(tmp_path, modality="text"), settings)) as client:
        found = refused(client, FAKE, example={"modality": "image", "data": "AAAA"})
    assert found == (422, "this index takes examples of modality 'text' or 'id'")


# ---- what a real index answers ----


def test_ten_of_each_direction_in_order(served: TestClient) -> None:
    answer = asked(served)
    proponents, opponents = answer.proponents or [], answer.opponents or []
    assert len(proponents) == len(opponents) == 10
    assert [hit.rank for hit in proponents] == [hit.rank for hit in opponents] == list(range(1, 11))
    up = [hit.score for hit in opponents]
    down = [hit.score for hit in proponents]
    assert down == sorted(down, reverse=True)
    assert up == sorted(up)
    assert up[-1] < 0 < down[-1]


def test_a_score_is_the_sum_of_its_parts_by_checkpoint(served: TestClient) -> None:
    answer = asked(served)
    for hit in (*(answer.proponents or ()), *(answer.opponents or ())):
        parts = hit.per_checkpoint or []
        assert len(parts) == 3
        assert hit.score == pytest.approx(sum(parts), abs=DOUBLE * sum(map(abs, parts)))


def test_all_rows_in_both_directions_are_each_others_reverse(served: TestClient) -> None:
    answer = asked(served, k=300)
    assert [h.id for h in answer.proponents or ()] == [h.id for h in reversed(answer.opponents or [])]
    assert len({h.id for h in answer.proponents or ()}) == 300


def test_a_smaller_k_is_the_head_of_a_larger_one(served: TestClient) -> None:
    few, many = asked(served, k=3), asked(served, k=50)
    assert few.proponents == (many.proponents or [])[:3]
    assert few.opponents == (many.opponents or [])[:3]


def test_the_same_request_gives_the_same_answer(served: TestClient) -> None:
    first, second = asked(served), asked(served)
    assert lasting(first) == lasting(second)
    assert first.id != second.id


@pytest.mark.parametrize("id", [0, 17, 99])
def test_an_image_is_answered_like_the_example_that_it_shows(served: TestClient, id: int) -> None:
    """Bit for bit: the digits were made as bytes / 255, the preview holds those bytes, and the codec divides again."""
    image = served.get(f"/v1/indexes/tiny/examples/test/{id}/media").content
    by_image = asked(served, example={"modality": "image", "data": base64.b64encode(image).decode()})
    assert lasting(by_image) == lasting(asked(served, example=known(id)))


@pytest.mark.parametrize("view", ["dot", "normalised"])
def test_the_answer_is_that_of_ask(served: TestClient, ask: Ask, view: View) -> None:
    for id, label in (("17", None), ("17", "5"), ("4", None)):
        answer = asked(served, example=known(id), label=label, view=view)
        ranking = ask.query(Question(KnownExample("test", id), label=label, view=view))
        for found, expected in ((answer.proponents, ranking.proponents), (answer.opponents, ranking.opponents)):
            plain = [hit.model_dump(exclude={"media_url"}) for hit in found or ()]
            assert plain == json.loads(json.dumps([asdict(hit) for hit in expected]))
        assert answer.query.model_dump() == asdict(ranking.query)
        assert (answer.index.fingerprint, answer.score.exact, answer.score.view) == (ranking.fingerprint, True, view)


def test_without_a_label_the_predicted_one_is_explained(served: TestClient, task: Task) -> None:
    predicted = asked(served).query
    assert (predicted.label, predicted.label_source) == (predicted.predicted, "predicted")
    assert list(predicted.probabilities) == LABELS
    assert sum(predicted.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert predicted.predicted == max(LABELS, key=predicted.probabilities.__getitem__)
    given = asked(served, label=predicted.label)
    assert given.query == predicted.model_copy(update={"label_source": "given"})
    assert given.proponents == asked(served).proponents


@pytest.mark.parametrize("label", ["0", "5", "9"])
def test_a_given_label_is_explained(served: TestClient, label: str) -> None:
    answer = asked(served, label=label)
    assert (answer.query.label, answer.query.label_source) == (label, "given")
    assert answer.query.loss == pytest.approx(-math.log(answer.query.probabilities[label]), rel=1e-4)
    assert (answer.proponents or [])[0].label == label


def test_a_training_example_is_its_own_proponent(served: TestClient) -> None:
    labels = {e["id"]: e["label"] for e in served.get("/v1/indexes/tiny/examples?split=train").json()["examples"]}
    answer = asked(served, example=known(3, "train"), label=labels["3"], k=300)
    [own] = [hit for hit in answer.proponents or () if hit.id == "3"]
    assert own.score == pytest.approx(own.self_influence, rel=SINGLE)


def test_the_served_top_ten_are_those_of_a_loop_in_float64(served: TestClient, task: Task, run: Path) -> None:
    assert task.test is not None
    checkpoints = open_run(run).checkpoints
    states, etas = [read_weights(c.path) for c in checkpoints], [c.learning_rates[0] for c in checkpoints]
    inputs, targets = read_rows(task.test, range(100))
    train = read_rows(task.train, range(len(task.train)))
    exact = reference.exact_scores((tiny_model(), cross_entropy), states, etas, (inputs, targets), train)
    ids = list(map(str, range(len(task.train))))
    for digit, (target, scores) in enumerate(zip(targets, exact, strict=True)):
        answer = asked(served, example=known(digit), label=LABELS[int(target)])
        for hits, expected in (
            (answer.proponents or [], reference.top_k(scores, 10, ids)),
            (answer.opponents or [], [(id, -score) for id, score in reference.top_k(-scores, 10, ids)]),
        ):
            assert len({hit.id for hit in hits}) == len(hits) == 10
            for hit, (id, score) in zip(hits, expected, strict=True):
                assert hit.id == id or abs(scores[int(hit.id)] - score) < NEAR_TIE * abs(score)
                assert hit.score == pytest.approx(scores[int(hit.id)].item(), rel=SERVED)


# ---- what a real index refuses ----


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (png(Image.new("L", (28, 27))), f"{WRONG_SIZE}, found 27 x 28; resize it as the training images were"),
        (png(Image.new("L", (28, 28)), "GIF"), NO_IMAGE),
        (png(Image.new("L", (28, 28)))[:60], NO_IMAGE),
        ("", NO_IMAGE),
        ("hunter2", NO_BASE64),
        ("hünter2", NO_BASE64),
    ],
)
def test_an_image_that_cannot_be_read_is_refused(served: TestClient, data: str, detail: str) -> None:
    assert refused(served, example={"modality": "image", "data": data}) == (422, detail)


def test_a_jpeg_is_read_and_colours_become_grey(served: TestClient) -> None:
    grey = Image.effect_noise((28, 28), 50)
    by_colour = asked(served, example={"modality": "image", "data": png(grey.convert("RGB"))})
    assert by_colour.proponents == asked(served, example={"modality": "image", "data": png(grey)}).proponents
    assert asked(served, example={"modality": "image", "data": png(grey, "JPEG")}).proponents


def test_a_label_or_example_that_is_not_there_is_refused(served: TestClient) -> None:
    labels = ", ".join(f"'{label}'" for label in LABELS)
    assert refused(served, label="hunter2") == (422, f"unknown label; expected one of {labels}")
    missing = "the index has no example of that split and id; ids are row numbers within the splits train and test"
    assert refused(served, example=known("hunter2")) == (404, missing)
    of_classes = "this index is of a classification: expected a label, found a target"
    assert refused(served, target=1.0) == (422, of_classes)


@pytest.fixture(scope="module")
def regressed(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> Iterator[TestClient]:
    folder = regression.regression_index(tmp_path_factory.mktemp("regression"))
    engine = WarmEngine({"tiny": Ask.open(folder, regression.task)})
    with TestClient(create_app(lambda: engine, settings)) as client:
        yield client


def test_a_regression_explains_its_loss_at_a_target(regressed: TestClient) -> None:
    """With the mean of the pixels as truth, the model says 0.5 too much everywhere: residuals are all the same sign."""
    answer = asked(regressed, example=known(3, "train"), target=0.0, k=30)
    [pixels] = {e["label"] for e in regressed.get("/v1/indexes/tiny/examples?split=train").json()["examples"][3:4]}
    assert answer.query.model_dump(exclude={"loss"}) == {
        "label": "0.0",
        "label_source": "given",
        "predicted": None,
        "probabilities": {},
    }
    assert answer.query.loss == pytest.approx((float(pixels) + 0.5) ** 2, rel=1e-4)
    assert all(hit.score > 0 for hit in answer.opponents or ())


def test_a_regression_needs_a_target_and_no_label(regressed: TestClient) -> None:
    needed = (422, "this index is of a regression: expected a target and no label")
    assert refused(regressed, example=known(3, "train")) == needed
    assert refused(regressed, example=known(3, "train"), label="0", target=1.0) == needed


def test_a_method_that_is_not_symmetric_is_served_unchanged(
    tmp_path: Path, task: Task, run: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "toy", ToyKind())
    folder = toy_index(tmp_path / "toy", task, run)
    opened = Ask.open(folder, task)
    with TestClient(create_app(lambda: WarmEngine({"toy": opened}), settings)) as client:
        answer = asked(client, "/v1/indexes/toy/query", label="5")
        assert client.get("/v1/indexes/toy").json()["method"] == "toy"
    assert task.test is not None
    inputs, _ = read_rows(task.test, [17])
    query, _ = opened.index.method.query_vectors((inputs, torch.tensor([5])))
    train = opened.index.method.train_rows(read_rows(task.train, range(len(task.train)))).vectors
    scores = train.double() @ query[0].double()
    best = reference.top_k(scores, 10, [str(row) for row in range(len(train))])
    assert [hit.id for hit in answer.proponents or ()] == [id for id, _ in best]
    assert [hit.score for hit in answer.proponents or ()] == pytest.approx([s for _, s in best], rel=SINGLE)
    assert {(len(h.per_checkpoint or ()), h.self_influence) for h in answer.proponents or ()} == {(1, None)}
    assert answer.score.method == "toy"
