"""The guard, as the pure ASGI layer that it is: body limit, catch-all 500, one log line a request."""

from collections.abc import Iterator

import anyio
import orjson
import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import EventDict

from service.guard import Guard
from tests.service.asking import problem_of
from tests.service.fake import FakeEngine

LIMIT = 100
TOO_LARGE = "the body is larger than the limit of {:,} bytes (max_body_bytes)"
QUERY = "/v1/indexes/fake/query"
JSON = {"Content-Type": "application/json"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body, or with 400 where the client has gone."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"gone"})
            return
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("look at /srv/hunter2")


async def fails_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("too late")


async def fails_when_gone(scope: Scope, receive: Receive, send: Send) -> None:
    """Raise as a framework does when the client has gone in the middle of the body."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ConnectionError("the client has gone")


def served(app: ASGIApp, chunks: list[bytes], *, declared: bytes | None = None, path: str = "/x") -> list[Message]:
    """Send one request through a guard and return what it sends."""
    waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [] if declared is None else [(b"content-length", declared)]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    anyio.run(Guard(app, LIMIT), scope, receive, send)
    return sent


def status_of(sent: list[Message]) -> int:
    """Return the status; exactly one answer must have begun."""
    [status] = [message["status"] for message in sent if message["type"] == "http.response.start"]
    assert isinstance(status, int)
    return status


@pytest.mark.parametrize("chunks", [[], [b"x" * LIMIT], [b"x" * 60, b"x" * 40], [b"x"] * LIMIT])
def test_a_body_up_to_the_limit_passes(chunks: list[bytes]) -> None:
    sent = served(echo, chunks)
    assert (status_of(sent), sent[-1]["body"]) == (200, str(len(b"".join(chunks))).encode())


@pytest.mark.parametrize("app", [echo, fails_when_gone])
@pytest.mark.parametrize("chunks", [[b"x" * (LIMIT + 1)], [b"x" * 60, b"x" * 41], [b"x"] * (LIMIT + 1)])
@pytest.mark.parametrize("declared", [None, b"5", b"not a number"])
def test_a_longer_body_is_a_413_whatever_was_declared(
    log: list[EventDict], app: ASGIApp, chunks: list[bytes], declared: bytes
) -> None:
    sent = served(app, chunks, declared=declared)
    assert status_of(sent) == 413
    assert orjson.loads(sent[-1]["body"])["detail"] == TOO_LARGE.format(LIMIT)
    assert [line["event"] for line in log] == ["request"]  # it is the caller's mistake, and no failure of ours


def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
        pytest.fail("the application was called")

    assert status_of(served(unreachable, [], declared=str(LIMIT + 1).encode())) == 413
    assert status_of(served(echo, [], declared=str(LIMIT).encode())) == 200


def test_an_unexpected_exception_is_a_500_without_its_text(log: list[EventDict]) -> None:
    sent = served(fails, [])
    assert status_of(sent) == 500
    assert b"hunter2" not in sent[-1]["body"]
    assert isinstance(log[0]["exc_info"], RuntimeError)


def test_an_answer_that_has_begun_is_broken_off() -> None:
    """Nothing can be said any more; the server closes the connection, and the client sees that it is cut."""
    with pytest.raises(RuntimeError, match="too late"):
        served(fails_late, [])


@pytest.mark.parametrize(
    ("app", "chunks", "status"), [(echo, [], 200), (fails, [], 500), (echo, [b"x" * (LIMIT + 1)], 413)]
)
def test_each_request_is_one_line_with_the_status_that_was_sent(
    log: list[EventDict], app: ASGIApp, chunks: list[bytes], status: int
) -> None:
    served(app, chunks)
    [line] = [line for line in log if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/x", status)


@pytest.mark.parametrize(("path", "lines"), [("/livez", 0), ("/readyz", 0), ("/livez/x", 1), ("/", 1)])
def test_probes_are_quiet(log: list[EventDict], path: str, lines: int) -> None:
    served(echo, [], path=path)
    assert len(log) == lines


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
def test_what_is_not_http_passes_untouched(kind: str, log: list[EventDict]) -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive, send))

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    scope = {"type": kind}
    anyio.run(Guard(app, LIMIT), scope, receive, send)
    assert seen == [scope, receive, send]
    assert log == []


def test_over_http_a_declared_length_is_refused(client: TestClient, engine: FakeEngine) -> None:
    found = problem_of(client.post(QUERY, content=b"x" * 5001, headers=JSON))
    assert (found.status, found.detail) == (413, TOO_LARGE.format(5000))
    assert engine.asked == []


def test_over_http_a_streamed_body_is_refused(client: TestClient, engine: FakeEngine) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"example": {"modality": "image", "data": "'
        for _ in range(100):
            yield b"A" * 100

    response = client.post(QUERY, content=chunks(), headers=JSON)
    assert "content-length" not in response.request.headers
    found = problem_of(response)
    assert (found.status, found.detail) == (413, TOO_LARGE.format(5000))
    assert engine.asked == []
