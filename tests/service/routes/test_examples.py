"""The examples of an index: pages that walk a whole split, single examples, and their previews."""

import io
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from indexer import Ask, Task
from indexer.codecs import Preview
from indexer.index.examples import Example, ExampleRow, Examples, write_examples
from service.schemas import ExampleOut, ExamplePage
from tests.service.asking import problem_of
from tests.service.fake import FakeEngine

EXAMPLES = "/v1/indexes/tiny/examples"
README = Path(__file__).parents[3] / "README.md"
CURSOR = "cursor: expected the next_cursor of an earlier page, or none for the first page"
ANOTHER = (
    "cursor: it belongs to a listing with another split, order, label or checkpoint; expected the arguments "
    "that it came with, or no cursor for the first page"
)
ONLY_TRAIN = "order: only training examples have self-influence; expected split=train with it"
MISSING = "the index has no example of that split and id; ids are row numbers within the splits train and test"


def pages(client: TestClient, path: str, **asked: str | int) -> list[ExamplePage]:
    """Return all pages, from one cursor to the next."""
    found = [ExamplePage.model_validate_json(client.get(path, params=asked).content)]
    while (cursor := found[-1].next_cursor) is not None:
        response = client.get(path, params=asked | {"cursor": cursor})
        assert response.status_code == 200
        found.append(ExamplePage.model_validate_json(response.content))
        assert len(found) < 400, "the pages have no end"
    return found


@pytest.mark.parametrize(
    ("split", "limit", "sizes"),
    [
        ("test", 40, [40, 40, 20]),
        ("test", 25, [25, 25, 25, 25]),
        ("train", 39, [39] * 7 + [27]),
    ],
)
def test_pages_walk_the_whole_split_once_in_the_order_of_the_data(
    served: TestClient, split: str, limit: int, sizes: list[int]
) -> None:
    found = pages(served, EXAMPLES, split=split, limit=limit)
    assert [len(page.examples) for page in found] == sizes
    ids = [example.id for page in found for example in page.examples]
    assert ids == [str(row) for row in range(sum(sizes))]
    assert {example.split for page in found for example in page.examples} == {split}


@pytest.mark.parametrize("limit", [41, 10**30])
def test_a_page_over_the_limit_is_refused(served: TestClient, limit: int) -> None:
    found = served.get(EXAMPLES, params={"limit": limit})
    assert (found.status_code, found.json()["detail"]) == (422, "limit: expected at most 40 (page_size)")


def test_without_arguments_the_test_split_is_listed(client: TestClient) -> None:
    [page] = pages(client, "/v1/indexes/fake/examples")
    assert page.examples == [
        ExampleOut(
            split="test",
            id=str(i),
            label="dog",
            self_influence=None,
            self_influence_per_checkpoint=None,
            media_url=f"/v1/indexes/fake/examples/test/{i}/media",
        )
        for i in range(2)
    ]


def test_an_example_is_the_same_alone_and_in_its_page(served: TestClient) -> None:
    for split in ("train", "test"):
        page = served.get(EXAMPLES, params={"split": split, "limit": 3}).json()
        for example in page["examples"]:
            assert served.get(f"{EXAMPLES}/{split}/{example['id']}").json() == example


def test_self_influence_is_summed_over_checkpoints(client: TestClient) -> None:
    found = client.get("/v1/indexes/fake/examples/train/1").json()
    assert (found["self_influence"], found["self_influence_per_checkpoint"]) == (1.5, [0.5, 1.0])


def ranked(checkpoint: int | None, label: str | None = None) -> dict[str, str | int]:
    """Return the arguments of a listing by self-influence."""
    wished = {"order": "self_influence", "checkpoint": checkpoint, "label": label}
    return {name: value for name, value in wished.items() if value is not None}


def of(examples: list[ExampleOut], checkpoint: int | None) -> list[float]:
    """Return what a list is sorted by: the sum, or the part of a checkpoint that is counted from 1."""
    parts = [example.self_influence_per_checkpoint or [] for example in examples]
    return [sum(found) if checkpoint is None else found[checkpoint - 1] for found in parts]


@pytest.mark.parametrize("checkpoint", [None, 1, 3])
@pytest.mark.parametrize("label", [None, "3"])
def test_training_examples_are_listed_by_self_influence(
    served: TestClient, ask: Ask, checkpoint: int | None, label: str | None
) -> None:
    asked = ranked(checkpoint, label)
    found = [example for page in pages(served, EXAMPLES, limit=17, **asked) for example in page.examples]
    rows = [row for row in ask.index.examples.listing("train", start=0, count=300) if label in (None, row.label)]
    own = {row.id: row.total if checkpoint is None else row.self_influence[checkpoint - 1] for row in rows}
    assert [example.id for example in found] == sorted(own, key=lambda id: (-(own[id] or 0), int(id)))
    assert of(found, checkpoint) == sorted(of(found, checkpoint), reverse=True)
    assert {example.split for example in found} == {"train"}


@pytest.mark.parametrize("checkpoint", [None, 1, 2])
@pytest.mark.parametrize("limit", [1, 3, 40])
def test_ties_are_listed_once_each(client: TestClient, checkpoint: int | None, limit: int) -> None:
    found = pages(client, "/v1/indexes/fake/examples", split="train", limit=limit, **ranked(checkpoint))
    assert [example.id for page in found for example in page.examples] == ["0", "1", "2"]


def test_neighbouring_floats_are_told_apart_from_page_to_page(
    client: TestClient, engine: FakeEngine, tmp_path: Path
) -> None:
    """Values one bit apart: a cursor that lost it would repeat an example or leave one out."""
    values = list(itertools.accumulate([1.0] * 8, lambda value, _: float(np.nextafter(value, 2))))
    rows = [Example("train", str(i), i, i, "cat", "", (value, 0.0)) for i, value in enumerate(values)]
    write_examples(tmp_path / "near", (ExampleRow(row, Preview("text/plain", b"")) for row in rows))
    engine.close()
    engine._examples = Examples([tmp_path / "near"])
    for checkpoint in (None, 1):
        found = pages(client, "/v1/indexes/fake/examples", limit=1, **ranked(checkpoint))
        assert [example.id for page in found for example in page.examples] == [str(i) for i in reversed(range(8))]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_label_is_listed_in_the_order_of_the_data(served: TestClient, split: str) -> None:
    every = [e for page in pages(served, EXAMPLES, split=split, limit=40) for e in page.examples if e.label == "3"]
    found = pages(served, EXAMPLES, split=split, limit=4, label="3")
    assert [example for page in found for example in page.examples] == every
    assert len(every) > 4


def test_a_label_that_no_example_of_the_split_has_is_an_empty_page(client: TestClient) -> None:
    response = client.get("/v1/indexes/fake/examples", params={"split": "train", "label": "dog"})
    assert response.json() == {"examples": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("asked", "detail"),
    [
        ({"split": "test", "order": "self_influence"}, ONLY_TRAIN),
        ({"checkpoint": 1}, "checkpoint: it orders by self-influence; expected order=self_influence with it"),
        (
            {"order": "self_influence", "checkpoint": 3},
            "checkpoint: expected a number from 1 to 2, or none for the sum over all",
        ),
        ({"label": "bird"}, "unknown label; expected one of 'cat', 'dog'"),
        ({"label": "", "order": "self_influence"}, "unknown label; expected one of 'cat', 'dog'"),
    ],
)
def test_what_does_not_go_together_is_refused(client: TestClient, asked: dict[str, str | int], detail: str) -> None:
    found = problem_of(client.get("/v1/indexes/fake/examples", params=asked))
    assert (found.status, found.detail) == (422, detail)


def test_an_index_without_self_influence_is_not_listed_by_it(
    client: TestClient, engine: FakeEngine, tmp_path: Path
) -> None:
    row = ExampleRow(Example("train", "0", 0, 0, "cat", ""), Preview("text/plain", b""))
    write_examples(tmp_path / "none", [row])
    engine.close()
    engine._examples = Examples([tmp_path / "none"])
    found = problem_of(client.get("/v1/indexes/fake/examples", params={"order": "self_influence"}))
    assert found.status == 422
    assert found.detail == "this index has no self-influence: its method defines none; list examples by row"


LISTINGS: list[dict[str, str | int]] = [
    {"split": "test"},
    {"split": "train"},
    {"split": "train", "label": "3"},
    {"order": "self_influence"},
    {"order": "self_influence", "label": "3"},
    {"order": "self_influence", "checkpoint": 1},
    {"order": "self_influence", "checkpoint": 2},
]


def test_a_cursor_is_good_for_its_own_listing_only(served: TestClient) -> None:
    cursors = [served.get(EXAMPLES, params=listing | {"limit": 1}).json()["next_cursor"] for listing in LISTINGS]
    for (i, listing), (j, cursor) in itertools.product(enumerate(LISTINGS), enumerate(cursors)):
        response = served.get(EXAMPLES, params=listing | {"limit": 2, "cursor": cursor})
        if i == j:
            assert len(response.json()["examples"]) == 2
        else:
            found = problem_of(response)
            assert (found.status, found.detail) == (422, ANOTHER)


@pytest.mark.parametrize("cursor", ["", "x", "start:5", "é", "c3RhcnQ6NQ=="])
@pytest.mark.parametrize("order", ["row", "self_influence"])
def test_a_cursor_that_is_not_ours_is_refused(client: TestClient, cursor: str, order: str) -> None:
    found = problem_of(client.get("/v1/indexes/fake/examples", params={"cursor": cursor, "order": order}))
    assert (found.status, found.detail) == (422, CURSOR)


def test_the_readme_s_requests_are_answered(served: TestClient) -> None:
    shown = re.findall(
        r"^curl -s 'http://127\.0\.0\.1:8000(/v1/indexes/mnist/examples\?[^']+)'$", README.read_text(), re.M
    )
    assert len(shown) == 1
    for path in shown:
        page = ExamplePage.model_validate_json(served.get(path.replace("mnist", "tiny")).content)
        assert len(page.examples) == 10
        assert {example.label for example in page.examples} == {"5"}
        assert of(page.examples, None) == sorted(of(page.examples, None), reverse=True)


def test_every_argument_is_described(app: FastAPI) -> None:
    described = app.openapi()["paths"]["/v1/indexes/{index}/examples"]["get"]["parameters"]
    query = {parameter["name"]: parameter for parameter in described if parameter["in"] == "query"}
    assert set(query) == {"split", "label", "order", "checkpoint", "limit", "cursor"}
    assert all(parameter["description"] for parameter in query.values())


def test_labels_are_those_of_the_task(served: TestClient, task: Task) -> None:
    found = served.get(EXAMPLES, params={"split": "train", "limit": 5}).json()["examples"]
    assert [example["label"] for example in found] == [
        task.label_of(torch.as_tensor(task.train[i][1])) for i in range(5)
    ]


@pytest.mark.parametrize("split", ["train", "test"])
def test_media_is_a_png_of_the_example(served: TestClient, task: Task, split: str) -> None:
    url = served.get(f"{EXAMPLES}/{split}/3").json()["media_url"]
    response = served.get(url)
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "private, max-age=3600"
    examples = task.split(split)
    assert examples is not None
    pixels = np.asarray(Image.open(io.BytesIO(response.content), formats=["PNG"]))
    assert np.array_equal(pixels, (examples[3][0][0] * 255).round().numpy())


@pytest.mark.parametrize("path", ["train/300", "test/100", "test/-1", "test/017", "test/1.0", "test/x", "test/%00"])
@pytest.mark.parametrize("media", ["", "/media"])
def test_an_example_that_is_not_there_is_a_404(served: TestClient, path: str, media: str) -> None:
    found = problem_of(served.get(f"{EXAMPLES}/{path}{media}"))
    assert (found.status, found.detail) == (404, MISSING)


@pytest.mark.parametrize(
    ("path", "loc"),
    [
        ("/valid/1", ["path", "split"]),
        ("?split=valid", ["query", "split"]),
        ("?limit=0", ["query", "limit"]),
        ("?limit=many", ["query", "limit"]),
        (f"?cursor={'A' * 101}", ["query", "cursor"]),
        ("?order=random", ["query", "order"]),
        ("?order=self_influence&checkpoint=0", ["query", "checkpoint"]),
        ("?order=self_influence&checkpoint=last", ["query", "checkpoint"]),
        (f"?label={'A' * 201}", ["query", "label"]),
        ("?lable=cat", ["query", "lable"]),
    ],
)
def test_arguments_out_of_range_are_a_422_that_says_which(client: TestClient, path: str, loc: list[str]) -> None:
    found = problem_of(client.get(f"/v1/indexes/fake/examples{path}"))
    assert (found.status, [item.loc for item in found.errors]) == (422, [loc])


@pytest.mark.parametrize("path", ["", "/train/1", "/train/1/media"])
def test_an_unknown_index_is_a_404(client: TestClient, path: str) -> None:
    assert problem_of(client.get(f"/v1/indexes/nope/examples{path}")).status == 404
