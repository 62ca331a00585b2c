"""The application as a value: when the engine opens and closes, request ids, and the OpenAPI description."""

import re
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from structlog.typing import EventDict

from service import errors
from service.app import create_app
from service.settings import Settings
from tests.service.fake import FakeEngine

QUERY = "/v1/indexes/fake/query"
ASKED = {"example": {"modality": "id", "split": "test", "id": "0"}}


def operations(app: FastAPI) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (path, method, operation) of the whole description."""
    paths = app.openapi()["paths"]
    return [(path, method, operation) for path, methods in paths.items() for method, operation in methods.items()]


def test_the_engine_opens_once_with_the_server_and_closes_with_it(engine: FakeEngine, settings: Settings) -> None:
    opened: list[int] = []

    def open_engine() -> FakeEngine:
        opened.append(1)
        return engine

    app = create_app(open_engine, settings)
    assert not opened
    with TestClient(app) as client:
        assert client.get("/livez").status_code == client.get("/v1/indexes").status_code == 200
        assert (len(opened), engine.closed) == (1, 0)
    assert (len(opened), engine.closed) == (1, 1)


def test_a_server_without_an_engine_does_not_start(settings: Settings) -> None:
    def broken() -> FakeEngine:
        raise ValueError("no engine")

    with pytest.raises(ValueError, match="no engine"), TestClient(create_app(broken, settings)):
        pytest.fail("the server took requests")


@pytest.mark.parametrize("path", ["/livez", "/v1/indexes", "/v1/indexes/nope", "/nope", "/docs"])
def test_a_given_request_id_comes_back(client: TestClient, path: str) -> None:
    given = uuid4().hex
    response = client.get(path, headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] == given
    if response.status_code >= 400:
        assert response.json()["request_id"] == given


def test_an_answer_carries_its_request_id(client: TestClient) -> None:
    given = uuid4().hex
    response = client.post(QUERY, json=ASKED, headers={"X-Request-ID": given})
    assert response.json()["id"] == response.headers["X-Request-ID"] == given


def test_without_a_request_id_each_request_gets_its_own(client: TestClient) -> None:
    first, second = client.get("/nope"), client.get("/nope")
    assert first.json()["request_id"] == first.headers["X-Request-ID"] != second.json()["request_id"]
    assert re.fullmatch("[0-9a-f]{32}", first.json()["request_id"])


def test_a_request_id_that_is_none_is_replaced(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    response = client.get("/nope", headers={"X-Request-ID": "<script>"})
    assert response.json()["request_id"] == response.headers["X-Request-ID"] != "<script>"
    assert "<script>" not in caplog.text


def test_each_request_is_one_line_with_its_id_and_nothing_of_its_input(
    client: TestClient, log: list[EventDict]
) -> None:
    given = uuid4().hex
    client.post(QUERY, json=ASKED | {"label": "a-secret"}, headers={"X-Request-ID": given})
    [line] = log
    assert line.pop("ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "method": "POST",
        "path": QUERY,
        "status": 200,
        "request_id": given,
    }


def test_probes_are_not_logged(client: TestClient, log: list[EventDict]) -> None:
    assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
    assert log == []


def test_every_operation_has_its_own_camel_case_id_and_one_tag(app: FastAPI) -> None:
    found = [operation for _, _, operation in operations(app)]
    ids = [operation["operationId"] for operation in found]
    assert sorted(ids) == sorted(set(ids)) == [
        "getExample",
        "getExampleMedia",
        "getIndex",
        "getLiveness",
        "getReadiness",
        "listExamples",
        "listIndexes",
        "queryInfluence",
    ]  # fmt: skip
    assert all(len(operation["tags"]) == 1 for operation in found)
    assert {operation["tags"][0] for operation in found} == {"health", "indexes", "examples", "query"}


def test_every_operation_is_described(app: FastAPI) -> None:
    assert all(operation["description"] and operation["summary"] for _, _, operation in operations(app))


def test_every_error_is_described_as_the_problem_that_it_is(app: FastAPI) -> None:
    """Clients are generated from this: the schema must stand under the media type that is really sent."""
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for path, method, operation in operations(app):
        described = {code: answer for code, answer in operation["responses"].items() if code != "200"}
        assert set(described) >= {str(status) for status in (404, 422, 500, 503)}, (path, method)
        for code, answer in described.items():
            assert answer["content"] == {errors.MEDIA_TYPE: problem}, (path, method, code)


def test_the_description_is_served(client: TestClient, app: FastAPI) -> None:
    assert client.get("/openapi.json").json() == app.openapi()


def test_pages_are_not_part_of_the_description(app: FastAPI) -> None:
    assert {path for path, _, _ in operations(app)} == {
        "/livez",
        "/readyz",
        "/v1/indexes",
        "/v1/indexes/{index}",
        "/v1/indexes/{index}/query",
        "/v1/indexes/{index}/examples",
        "/v1/indexes/{index}/examples/{split}/{id}",
        "/v1/indexes/{index}/examples/{split}/{id}/media",
    }
