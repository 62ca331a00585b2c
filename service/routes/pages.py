"""The page of pictures at /, the OpenAPI page at /docs, and their files. Everything comes from this server."""

from pathlib import Path

from fastapi import APIRouter, HTTPException, Response

router = APIRouter(include_in_schema=False)

_WEB = Path(__file__).parent.parent / "web"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
_OWN = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DOCS = _OWN.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # Swagger UI sets style attributes


@router.get("/")
def explorer() -> Response:
    """The page of pictures."""
    return _file("index.html", _OWN)


@router.get("/docs")
def docs() -> Response:
    """The OpenAPI page."""
    return _file("docs.html", _DOCS)


@router.get("/static/{path:path}")
def static(path: str) -> Response:
    """A file of the pages."""
    return _file(path, _OWN)


def _file(path: str, policy: str) -> Response:
    """Return a file of the web folder; one that is stored compressed is sent as it is stored.

    Raises:
        HTTPException: there is no such file.
    """
    try:
        plain = (_WEB / path).resolve()
        packed = plain.with_name(plain.name + ".gz")
        file = packed if packed.is_file() else plain
        found = _WEB in file.parents and file.is_file() and plain.suffix in _TYPES
    except (OSError, ValueError):  # what no file system takes: a null byte, a name that is too long or empty
        found = False
    if not found:
        raise HTTPException(404)
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    if file == packed:
        headers["Content-Encoding"] = "gzip"
    return Response(file.read_bytes(), media_type=_TYPES[plain.suffix], headers=headers)
