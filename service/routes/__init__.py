"""Routes: parse, ask the engine, write the answer. Ten lines each."""

from urllib.parse import quote

from fastapi import Request

from service.engine import Engine
from service.settings import Settings


def engine_of(request: Request) -> Engine:
    """Return the engine that the application opened."""
    engine: Engine = request.app.state.engine
    return engine


def settings_of(request: Request) -> Settings:
    """Return the application's settings."""
    settings: Settings = request.app.state.settings
    return settings


def media_url(index: str, split: str, id: str) -> str:
    """Return the path of an example's preview."""
    return f"/v1/indexes/{quote(index, safe='')}/examples/{quote(split, safe='')}/{quote(id, safe='')}/media"
