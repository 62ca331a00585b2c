"""Asking over HTTP: answers and problems are held to their schemas whenever a test reads one."""

from http import HTTPStatus
from typing import Any

from httpx2 import Response
from starlette.testclient import TestClient

from service.schemas import Problem, QueryAnswer

TINY = "/v1/indexes/tiny/query"
DIGIT = {"modality": "id", "split": "test", "id": "17"}


def known(id: int | str, split: str = "test") -> dict[str, Any]:
    return {"modality": "id", "split": split, "id": str(id)}


def asked(client: TestClient, path: str = TINY, **body: Any) -> QueryAnswer:
    """Return the answer; it must be what the schema says, and no more."""
    response = client.post(path, json={"example": DIGIT} | body)
    assert response.status_code == 200, response.text
    answer = QueryAnswer.model_validate_json(response.content, strict=True)
    assert answer.model_dump(exclude_unset=True) == response.json()
    return answer


def refused(client: TestClient, path: str = TINY, **body: Any) -> tuple[int, str]:
    found = problem_of(client.post(path, json={"example": DIGIT} | body))
    return found.status, found.detail


def lasting(answer: QueryAnswer) -> dict[str, Any]:
    """Everything of an answer but its own id and the time it took."""
    return answer.model_dump(exclude={"id", "timing"})


def problem_of(response: Response) -> Problem:
    """Return the body of a problem response; it must be what the schema says, and no more."""
    assert response.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(response.content, strict=True)
    assert found.model_dump() == response.json()
    assert (found.type, found.status) == ("about:blank", response.status_code)
    assert found.title == HTTPStatus(found.status).phrase
    assert found.request_id == response.headers["X-Request-ID"]
    return found
