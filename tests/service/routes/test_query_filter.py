"""Filters over HTTP: what becomes of them, what they leave, and what is refused without repeating it."""

import pytest
from starlette.testclient import TestClient

from indexer import Filter, KnownExample, Question
from tests.service.asking import asked, refused
from tests.service.fake import FakeEngine

FAKE = "/v1/indexes/fake/query"


def test_a_filter_becomes_part_of_the_question(client: TestClient, engine: FakeEngine) -> None:
    wanted = {"labels": ["3"], "ids": ["1", "2"], "exclude_ids": ["2"], "self_influence": {"least": 0.5}}
    asked(client, FAKE, filter=wanted)
    asked(client, FAKE, filter={})
    asked(client, FAKE, filter=None)
    example = KnownExample("test", "17")
    assert engine.asked == [
        Question(example, filter=Filter(["3"], ["1", "2"], ["2"], 0.5, None)),
        Question(example, filter=Filter(None, None, [], None, None)),
        Question(example),
    ]


def test_a_filtered_answer_is_what_is_left_of_the_whole(served: TestClient) -> None:
    whole = asked(served, k=300, include=[])
    assert whole.proponents is not None and whole.opponents is not None
    first = whole.proponents[0].id
    found = asked(served, k=300, include=[], filter={"labels": ["3", "5"], "exclude_ids": [first]})
    for direction in ("proponents", "opponents"):
        kept = [(hit.id, hit.score) for hit in getattr(whole, direction) if hit.label in ("3", "5") and hit.id != first]
        assert [(hit.id, hit.score) for hit in getattr(found, direction)] == kept
        assert [hit.rank for hit in getattr(found, direction)] == list(range(1, len(kept) + 1))
    assert found.search.exhaustive


def test_fewer_than_k_are_answered_where_fewer_pass(served: TestClient) -> None:
    found = asked(served, k=10, filter={"ids": ["4", "9"]})
    assert found.proponents is not None and {hit.id for hit in found.proponents} == {"4", "9"}
    none = asked(served, k=10, filter={"self_influence": {"most": -1.0}})
    assert (none.proponents, none.opponents) == ([], [])


@pytest.mark.parametrize(
    ("wanted", "detail"),
    [
        ({"ids": ["secret"]}, "filter.ids: 1 of 1 are not the id of a training example of the index"),
        ({"exclude_ids": ["0", "secret"]}, "filter.exclude_ids: 1 of 2 are not the id of a training example"),
        ({"labels": ["secret"]}, "unknown label; expected one of '0', '1'"),
        ({"color": "secret"}, "filter.color"),
        ({"self_influence": {"least": "secret"}}, "filter.self_influence.least"),
    ],
)
def test_what_is_unknown_is_refused_and_not_repeated(served: TestClient, wanted: object, detail: str) -> None:
    response = served.post(
        "/v1/indexes/tiny/query", json={"example": {"modality": "id", "split": "test", "id": "17"}, "filter": wanted}
    )
    assert response.status_code == 422
    assert "secret" not in response.text
    assert detail in response.text or detail.split(".")[-1] in response.text


def test_a_filter_of_an_index_that_is_not_served_is_no_reason(client: TestClient) -> None:
    status, _ = refused(client, "/v1/indexes/nope/query", filter={"labels": ["3"]})
    assert status == 404
