"""The outermost layer of our own: body limit, catch-all 500, and one log line a request. Pure ASGI.

The limit holds for what Content-Length says and for what is really streamed. Probes are not logged, and no line has
an input in it.
"""

import time

import structlog
from asgi_correlation_id import correlation_id
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors

_QUIET = frozenset({"/livez", "/readyz"})
_log = structlog.get_logger("proponent")


class Guard:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        call = _Call(receive, send, self._limit)
        if _declared_length(scope) > self._limit:
            await self._refuse(scope, call)
        else:
            await self._serve(scope, call)
        if scope["path"] not in _QUIET:
            _log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=call.status,
                ms=round(1000 * (time.perf_counter() - call.started), 2),
                request_id=correlation_id.get(),
            )

    async def _serve(self, scope: Scope, call: "_Call") -> None:
        try:
            await self._app(scope, call.receive, call.send)
        except Exception as exc:  # the service's outermost handler
            if call.status:
                raise  # the answer has begun: nothing can be said any more but to break it off
            if not call.overflowed:
                await errors.internal(exc)(scope, call.receive, call.send)
        if call.overflowed:
            call.overflowed = False
            await self._refuse(scope, call)

    async def _refuse(self, scope: Scope, call: "_Call") -> None:
        detail = f"the body is larger than the limit of {self._limit:,} bytes (max_body_bytes)"
        await errors.problem(413, detail)(scope, call.receive, call.send)


class _Call:
    """One request: counts the body and remembers the status.

    A body that passes the limit ends as if the client had gone; what the application then says is dropped, and the
    guard answers in its place.
    """

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self.started = time.perf_counter()
        self.status = 0
        self.overflowed = False
        self._receive = receive
        self._send = send
        self._left = limit

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.overflowed = True
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if self.overflowed:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
