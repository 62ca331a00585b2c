"""What all routes share: the engine and the settings of the application, and the paths of previews."""

from urllib.parse import unquote, urlsplit

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.testclient import TestClient

from service.routes import engine_of, media_url, settings_of
from service.settings import Settings
from tests.service.fake import FakeEngine


def test_routes_find_the_engine_and_the_settings_of_their_application(
    app: FastAPI, client: TestClient, engine: FakeEngine, settings: Settings
) -> None:
    request = Request({"type": "http", "app": app})
    assert engine_of(request) is engine
    assert settings_of(request) is settings


def test_the_path_of_a_preview() -> None:
    assert media_url("mnist", "train", "17") == "/v1/indexes/mnist/examples/train/17/media"


@pytest.mark.parametrize("name", ["of 2026", "50%25", "a?b", "a#b", "größer"])
def test_a_path_is_quoted(name: str) -> None:
    """A folder may have any name; what a browser asks for must still be the preview."""
    url = media_url(name, "train", "17")
    assert url.isascii()
    assert " " not in url
    assert unquote(urlsplit(url).path) == f"/v1/indexes/{name}/examples/train/17/media"
