"""The application as a value: nothing happens at import, and the engine opens when the server starts."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from service import errors
from service.engine import Engine
from service.guard import Guard
from service.routes import examples, health, indexes, pages, query
from service.schemas import Problem
from service.settings import Settings

_DESCRIPTION = """
Which training examples made this model say that?

A **proponent** has a high score: training on it moved the query's loss down. An **opponent** has a low one: training
on it moved the loss up. Scores are products of loss gradients, summed over checkpoints and weighted by their learning
rates.
"""


class _Described(FastAPI):
    """FastAPI describes every model as application/json; problems are sent as what they are."""

    def openapi(self) -> dict[str, Any]:
        """Return the description, made once."""
        if self.openapi_schema is None:
            for methods in super().openapi()["paths"].values():
                for operation in methods.values():
                    for code, answer in operation["responses"].items():
                        if code != "200":
                            answer["content"] = {errors.MEDIA_TYPE: _PROBLEM}
        return super().openapi()


_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}


def _usable_id(request_id: str) -> bool:
    """A caller's own request id is kept if it is short and plain; else a new one is made."""
    return re.fullmatch(r"[\w.:-]{1,128}", request_id, re.ASCII) is not None


def create_app(open_engine: Callable[[], Engine], settings: Settings) -> FastAPI:
    """Return the application; ``open_engine`` is called once, before the first request is taken."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = await run_in_threadpool(open_engine)
        yield
        await run_in_threadpool(app.state.engine.close)

    problems: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (400, 404, 413, 422, 500, 503)}
    app = _Described(
        title="Proponent",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=problems,
    )
    app.state.settings = settings
    errors.install(app)
    for module in (health, indexes, examples, query, pages):
        app.include_router(module.router)
    app.add_middleware(Guard, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(CorrelationIdMiddleware, header_name="X-Request-ID", validator=_usable_id)
    return app
