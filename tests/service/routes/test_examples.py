"""The examples of an index: pages that walk a whole split, single examples, and their previews."""

import base64
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from indexer import Task
from indexer.errors import QuestionError
from service.routes.examples import _cursor, _start
from service.schemas import ExampleOut, ExamplePage
from tests.service.asking import problem_of

EXAMPLES = "/v1/indexes/tiny/examples"
CURSOR = "cursor: expected the next_cursor of an earlier page, or none for the first page"
MISSING = "the index has no example of that split and id; ids are row numbers within the splits train and test"
PROPERTY = hypothesis_settings(max_examples=50, deadline=None, derandomize=True)


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
    assert client.get("/v1/indexes/fake/examples/train/1").json()["self_influence"] == 1.5


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
    ],
)
def test_arguments_out_of_range_are_a_422_that_says_which(client: TestClient, path: str, loc: list[str]) -> None:
    found = problem_of(client.get(f"/v1/indexes/fake/examples{path}"))
    assert (found.status, [item.loc for item in found.errors]) == (422, [loc])


@pytest.mark.parametrize("path", ["", "/train/1", "/train/1/media"])
def test_an_unknown_index_is_a_404(client: TestClient, path: str) -> None:
    assert problem_of(client.get(f"/v1/indexes/nope/examples{path}")).status == 404


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "start:5", "é", *map(encoded, ("start:", "start:-1", "start:1.5", "start:٣", "begin:1", "5"))],
)
def test_a_cursor_that_is_not_ours_is_refused(client: TestClient, cursor: str) -> None:
    found = problem_of(client.get("/v1/indexes/fake/examples", params={"cursor": cursor}))
    assert (found.status, found.detail) == (422, CURSOR)


@pytest.mark.parametrize("start", [2**63 - 1, 2**63, 10**60])
def test_a_cursor_past_the_end_is_an_empty_page_or_refused(client: TestClient, start: int) -> None:
    """Numbers of more than 63 bits are none that SQL can count to."""
    response = client.get("/v1/indexes/fake/examples", params={"cursor": encoded(f"start:{start}")})
    if start < 2**63:
        assert response.json() == {"examples": [], "next_cursor": None}
    else:
        assert (response.status_code, problem_of(response).detail) == (422, CURSOR)


@PROPERTY
@given(st.integers(0, 2**63 - 1))
def test_a_cursor_comes_back_as_its_number(start: int) -> None:
    assert _start(_cursor(start)) == start


@PROPERTY
@given(st.text(max_size=100))
def test_any_other_text_is_refused_or_a_number(text: str) -> None:
    try:
        assert _start(text) >= 0
    except QuestionError as exc:
        assert str(exc) == CURSOR
