"""Every error is a problem+json: the right status, our own text below 500 and none from there on, never the input."""

import inspect
import json
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from starlette.testclient import TestClient
from structlog.typing import EventDict

from indexer import errors as ours
from service import errors
from tests.service.asking import problem_of
from tests.service.fake import FakeEngine

QUERY = "/v1/indexes/fake/query"
KNOWN = {"modality": "id", "split": "test", "id": "0"}
SECRET = "hunter2"
OURS = [kind for _, kind in inspect.getmembers(ours, inspect.isclass) if issubclass(kind, ours.ProponentError)]


def test_the_table_has_every_error_and_no_other() -> None:
    assert set(errors.STATUS) == set(OURS)


def test_the_callers_mistakes_are_4xx_and_ours_5xx() -> None:
    blamed = {kind for kind, status in errors.STATUS.items() if status < 500}
    assert blamed == {kind for kind in OURS if issubclass(kind, ours.QuestionError)}
    assert all(errors.STATUS[kind] == 404 for kind in OURS if issubclass(kind, ours.NotFoundError))
    assert all(errors.STATUS[kind] == 503 for kind in OURS if issubclass(kind, ours.IndexFileError))


@pytest.mark.parametrize("kind", OURS)
def test_each_error_answers_with_its_status_and_only_a_4xx_with_its_text(
    client: TestClient, engine: FakeEngine, log: list[EventDict], kind: type[ours.ProponentError]
) -> None:
    engine.failure = kind(f"look at /srv/{SECRET}")
    response = client.post(QUERY, json={"example": KNOWN})
    found = problem_of(response)
    assert found.status == errors.STATUS[kind]
    assert found.errors == []
    if found.status < 500:
        assert found.detail == f"look at /srv/{SECRET}"
        assert [line["event"] for line in log] == ["request"]
    else:
        assert SECRET not in response.text
        assert log[0]["exc_info"] is engine.failure


@pytest.mark.parametrize(
    ("failure", "status", "detail"),
    [
        (ours.ProbeError("x"), 500, "the server failed; its log has the reason under this request id"),
        (RuntimeError("x"), 500, "the server failed; its log has the reason under this request id"),
        (
            ours.CorruptIndexError("x"),
            503,
            "this index cannot answer at the moment; its log has the reason under this request id",
        ),
    ],
)
def test_the_reason_of_a_5xx_stands_in_the_log_under_the_request_id(
    client: TestClient, engine: FakeEngine, log: list[EventDict], failure: Exception, status: int, detail: str
) -> None:
    engine.failure = failure
    found = problem_of(client.post(QUERY, json={"example": KNOWN}))
    assert (found.status, found.detail) == (status, detail)
    reason, request = log
    assert (reason["exc_info"], reason["status"], reason["log_level"]) == (failure, status, "error")
    assert (request["event"], request["status"]) == ("request", status)
    assert request["request_id"] == found.request_id
    assert reason["request_id"] == found.request_id


@pytest.mark.parametrize("body", [b"{", b"not JSON", b"\xff\xfe", b'"\xff"', b"[" * 4000])
def test_a_body_that_cannot_be_read_as_json_is_a_400(client: TestClient, body: bytes) -> None:
    found = problem_of(client.post(QUERY, content=body, headers={"Content-Type": "application/json"}))
    assert (found.status, found.errors) == (400, [])
    assert found.detail == "the body is not a JSON object; send one with Content-Type: application/json"


def test_a_body_is_required(client: TestClient) -> None:
    found = problem_of(client.post(QUERY))
    assert (found.status, found.detail) == (
        400,
        "the body is not a JSON object; send one with Content-Type: application/json",
    )


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_json_must_be_called_json(client: TestClient, content_type: str | None) -> None:
    """Otherwise a page elsewhere could have a browser post here without asking first."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    found = problem_of(client.post(QUERY, content=json.dumps({"example": KNOWN}), headers=headers))
    assert (found.status, found.detail) == (
        400,
        "the body is not a JSON object; send one with Content-Type: application/json",
    )


@pytest.mark.parametrize(
    ("change", "loc", "kind"),
    [
        ({"k": 0}, ["body", "k"], "greater_than_equal"),
        ({"k": -1}, ["body", "k"], "greater_than_equal"),
        ({"k": 1.5}, ["body", "k"], "int_from_float"),
        ({"k": float("nan")}, ["body", "k"], "finite_number"),
        ({"target": float("nan")}, ["body", "target"], "finite_number"),
        ({"target": float("-inf")}, ["body", "target"], "finite_number"),
        ({"label": 5}, ["body", "label"], "string_type"),
        ({"label": "5" * 201}, ["body", "label"], "string_too_long"),
        ({"explain": {"quantity": SECRET}}, ["body", "explain", "quantity"], "literal_error"),
        ({"directions": []}, ["body", "directions"], "too_short"),
        ({"directions": [SECRET]}, ["body", "directions", 0], "literal_error"),
        ({"include": ["media", SECRET]}, ["body", "include", 1], "literal_error"),
        ({"unknown": SECRET}, ["body", "unknown"], "extra_forbidden"),
        ({"example": KNOWN | {"unknown": SECRET}}, ["body", "example", "id", "unknown"], "extra_forbidden"),
        ({"example": KNOWN | {"split": SECRET}}, ["body", "example", "id", "split"], "literal_error"),
        ({"example": KNOWN | {"id": 17}}, ["body", "example", "id", "id"], "string_type"),
        ({"example": {"modality": "image"}}, ["body", "example", "image", "data"], "missing"),
        ({"example": {"modality": SECRET}}, ["body", "example"], "union_tag_invalid"),
        ({"example": {"split": "test"}}, ["body", "example"], "union_tag_not_found"),
        ({"example": SECRET}, ["body", "example"], "model_attributes_type"),
    ],
)
def test_what_does_not_fit_the_schema_is_a_422_that_says_where_and_not_what(
    client: TestClient, engine: FakeEngine, change: dict[str, Any], loc: list[str | int], kind: str
) -> None:
    body = json.dumps(
        {"example": KNOWN} | change
    )  # writes NaN and Infinity, which JSON does not have, as many clients do
    response = client.post(QUERY, content=body, headers={"Content-Type": "application/json"})
    found = problem_of(response)
    [item] = found.errors
    assert (found.status, item.loc, item.type) == (422, loc, kind)
    assert found.detail == f"the request does not fit the schema: {'.'.join(map(str, loc))}: {item.msg}"
    assert SECRET not in response.text
    assert engine.asked == []


def test_many_mistakes_are_cut_to_twenty(client: TestClient) -> None:
    body = {"example": KNOWN} | {f"unknown{i}{'x' * 100}": i for i in range(30)}
    found = problem_of(client.post(QUERY, json=body))
    assert len(found.errors) == 20
    assert all(len(str(part)) <= 80 for item in found.errors for part in item.loc)


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/nope", 404, "nothing lives at this path; /docs lists what does"),
        ("GET", "/v1/indexes/fake/query", 405, "this path does not take this method"),
        ("DELETE", "/v1/indexes", 405, "this path does not take this method"),
        ("GET", "/v1/indexes/nope", 404, "no index of that name is served; GET /v1/indexes lists them"),
    ],
)
def test_paths_and_methods_that_are_not_there(
    client: TestClient, method: str, path: str, status: int, detail: str
) -> None:
    response = client.request(method, path)
    found = problem_of(response)
    assert (found.status, found.detail) == (status, detail)
    assert ("allow" in response.headers) == (status == 405)


def test_an_http_exception_keeps_its_headers_and_loses_its_text(app: FastAPI) -> None:
    @app.get("/tea")
    def tea() -> None:
        raise HTTPException(418, SECRET, headers={"X-Pot": "short"})

    with TestClient(app) as client:
        response = client.get("/tea")
    assert (problem_of(response).detail, response.headers["X-Pot"]) == ("I'm a Teapot", "short")


def test_k_of_zero_is_refused_in_these_words(client: TestClient) -> None:
    found = problem_of(client.post(QUERY, json={"example": KNOWN, "k": 0}))
    assert (found.status, found.detail) == (
        422,
        "the request does not fit the schema: body.k: Input should be greater than or equal to 1",
    )
