"""Every error leaves as problem+json (RFC 9457): one table from type to status, and never the input that caused it.

Messages of 4xx errors are ours and written for the caller. A 5xx says nothing but its request id: the reason may name
files of the server, and stands in the log.
"""

from http import HTTPStatus
from typing import Any

import orjson
import structlog
from asgi_correlation_id import correlation_id
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from indexer import errors

MEDIA_TYPE = "application/problem+json"

STATUS: dict[type[errors.ProponentError], int] = {
    errors.ProponentError: 500,
    errors.QuestionError: 422,
    errors.UnknownLabelError: 422,
    errors.InputFormatError: 422,
    errors.UnsupportedExplainError: 422,
    errors.NotFoundError: 404,
    errors.UnknownExampleError: 404,
    errors.UnknownIndexError: 404,
    errors.UnknownVersionError: 404,
    errors.TaskError: 500,
    errors.ProbeError: 500,
    errors.CheckpointError: 500,
    errors.LearningRateError: 500,
    errors.ChoiceError: 500,
    errors.RecordError: 500,
    errors.IndexFileError: 503,
    errors.CorruptIndexError: 503,
    errors.TaskMismatchError: 503,
    errors.BuildError: 500,
    errors.TooLargeError: 500,
    errors.DiskFullError: 500,
    errors.SettingsError: 500,
    errors.MissingExtraError: 500,
}

_NOT_JSON = "the body is not a JSON object; send one with Content-Type: application/json"
_DETAIL = {
    400: _NOT_JSON,
    404: "nothing lives at this path; /docs lists what does",
    405: "this path does not take this method",
}
_log = structlog.get_logger("proponent")


def problem(status: int, detail: str, items: list[dict[str, object]] | None = None) -> Response:
    """Return a problem response; its title is the status's own phrase."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": correlation_id.get(),
        "errors": items or [],
    }
    return Response(orjson.dumps(body), status, media_type=MEDIA_TYPE)


def internal(exc: Exception) -> Response:
    """Log an error of ours with its trace, and say nothing of it but where to look."""
    status = _status(exc)
    _log.error("request failed", status=status, request_id=correlation_id.get(), exc_info=exc)
    what = "this index cannot answer at the moment" if status == 503 else "the server failed"
    return problem(status, f"{what}; its log has the reason under this request id")


def _status(exc: Exception) -> int:
    """Return the status of an exception's nearest type in the table: a codec may raise its own kind of one of ours."""
    return next((STATUS[kind] for kind in type(exc).__mro__ if kind in STATUS), 500)


def install(app: FastAPI) -> None:
    """Answer every kind of exception with a problem."""
    app.add_exception_handler(errors.ProponentError, _on_ours)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_ours(request: Request, exc: Exception) -> Response:
    status = _status(exc)
    return problem(status, str(exc)) if status < 500 else internal(exc)


async def _on_validation(request: Request, exc: Exception) -> Response:
    found = exc.errors() if isinstance(exc, RequestValidationError) else []
    if any(item["type"] == "json_invalid" or item["loc"] == ("body",) for item in found):
        return problem(400, _NOT_JSON)
    items: list[dict[str, object]] = [
        {"loc": [part if isinstance(part, int) else str(part)[:80] for part in item["loc"]], "msg": _message(item)}
        | {"type": item["type"]}
        for item in found[:20]
    ]
    first = f"{'.'.join(map(str, items[0]['loc']))}: {items[0]['msg']}" if items else ""  # type: ignore[call-overload]
    return problem(422, f"the request does not fit the schema: {first}", items)


def _message(item: Any) -> str:
    """Return pydantic's message, but for the one that quotes the input."""
    if item["type"] == "union_tag_invalid":
        return f"expected one of {item['ctx']['expected_tags']}"
    return str(item["msg"])[:300]


async def _on_http(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    answer = problem(status, _DETAIL.get(status, HTTPStatus(status).phrase))
    if isinstance(exc, HTTPException) and exc.headers:
        answer.headers.update(exc.headers)
    return answer
