"""The pages: every file that they name is served from here, under a policy that lets nothing else in."""

import gzip
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi import HTTPException
from starlette.testclient import TestClient

from service.routes import pages
from tests.service.asking import problem_of

WEB = Path(pages.__file__).parent.parent / "web"
ENTRANCES = {"/": "index.html", "/docs": "docs.html"}
MISSING = "nothing lives at this path; /docs lists what does"


class Assets(HTMLParser):
    """Collects what a page loads; an inline script or style would break its policy."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        assert tag != "style", "an inline style"
        assert tag != "script" or found.get("src"), "an inline script"
        assert not any(name.startswith("on") or name == "style" for name in found), f"an inline handler in <{tag}>"
        if tag in ("script", "img"):
            self.urls.append(found.get("src") or "")
        if tag == "link":
            self.urls.append(found.get("href") or "")


def assets(page: str) -> list[str]:
    parser = Assets()
    parser.feed(page)
    return parser.urls


def imported(source: str, base: str) -> Iterator[str]:
    """Yield the paths of the modules that a script imports from beside it."""
    for name in re.findall(r"""(?:from|import)\s*\(?\s*["']\./([\w./-]+)["']""", source):
        yield base.rpartition("/")[0] + "/" + name


@pytest.mark.parametrize(("path", "file"), ENTRANCES.items())
def test_each_page_is_served_with_everything_that_it_names(client: TestClient, path: str, file: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert response.text == (WEB / file).read_text()
    waiting = [url for url in assets(response.text) if not url.startswith("data:")]
    assert waiting
    seen: set[str] = set()
    while waiting:
        url = waiting.pop()
        assert url.startswith("/static/"), f"{url} is not of this server"
        found = client.get(url)
        assert found.status_code == 200, url
        assert len(found.text) > 100
        seen.add(url)
        waiting += [name for name in imported(found.text, url) if name not in seen]


@pytest.mark.parametrize("path", [*ENTRANCES, "/static/docs.js", "/static/vendor/swagger-ui/swagger-ui.css"])
def test_every_page_and_file_carries_a_policy(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["style-src"] == ("'self' 'unsafe-inline'" if path == "/docs" else "'self'")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["swagger-ui.css", "swagger-ui-bundle.js"])
def test_a_file_that_is_stored_compressed_is_sent_as_it_is(client: TestClient, name: str) -> None:
    path = f"vendor/swagger-ui/{name}"
    packed = (WEB / f"{path}.gz").read_bytes()
    response = client.get(f"/static/{path}")
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["content-length"] == str(len(packed))
    assert response.content == gzip.decompress(packed)


@pytest.mark.parametrize(
    ("path", "kind"), [("docs.js", "text/javascript"), ("vendor/swagger-ui/swagger-ui.css", "text/css")]
)
def test_types_are_those_that_browsers_insist_on(client: TestClient, path: str, kind: str) -> None:
    assert client.get(f"/static/{path}").headers["content-type"] == f"{kind}; charset=utf-8"


@pytest.mark.parametrize(
    "path",
    [
        "../settings.py",
        "%2e%2e/settings.py",
        "..%2fsettings.py",
        "vendor/../../settings.py",
        "vendor/%2e%2e/%2e%2e/settings.py",
        "..%2f..%2fservice%2fweb%2fdocs.js%2f..%2f..%2fsettings.py",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "",
        "/",
        "%2f",
        ".",
        "vendor",
        "vendor/swagger-ui/LICENSE",
        "vendor/swagger-ui/swagger-ui.css.gz",
        "nope.js",
        "docs.js/x.js",
        "%00.js",
        "x" * 300 + ".js",
    ],
)
def test_no_other_file_is_served(client: TestClient, path: str) -> None:
    found = problem_of(client.get(f"/static/{path}"))
    assert (found.status, found.detail) == (404, MISSING)


@pytest.mark.parametrize("path", ["../settings.py", "vendor/../../settings.py", "../web/../../service/settings.py"])
def test_a_path_that_no_client_has_tidied_is_refused(path: str) -> None:
    with pytest.raises(HTTPException, match="404"):
        pages.static(path)


def test_a_link_out_of_the_folder_is_not_followed(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = tmp_path / "web"
    web.mkdir()
    (tmp_path / "secret.js").write_text("secret")
    (web / "own.js").write_text("own")
    (web / "out.js").symlink_to(tmp_path / "secret.js")
    monkeypatch.setattr(pages, "_WEB", web)
    assert client.get("/static/own.js").text == "own"
    assert problem_of(client.get("/static/out.js")).status == 404
