"""Logs: one JSON object a line on standard error, from our lines and from the standard library's loggers alike."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from service.logs import configure_logs


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pytest gets its handlers back, and structlog its settings."""
    root, before = logging.getLogger(), structlog.get_config()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    yield
    root.setLevel(level)
    structlog.configure(**before)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return the lines on standard error, each of them JSON; standard output must have none."""
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def test_our_lines_are_json_with_level_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    structlog.get_logger("proponent").info("request", path="/x", ms=1.5)
    [line] = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "request", "level": "info", "path": "/x", "ms": 1.5}


def test_a_failure_is_one_line_with_its_trace(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    try:
        raise ValueError("the reason\nin two lines")
    except ValueError as exc:
        structlog.get_logger("proponent").error("request failed", exc_info=exc)
    [line] = lines(capsys)
    assert line["level"] == "error"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: the reason\nin two lines")


def test_a_trace_shows_no_values_of_variables(capsys: pytest.CaptureFixture[str]) -> None:
    """They may be inputs."""
    configure_logs()
    secret = "-".join(["hunter", "2"])
    try:
        raise ValueError(len(secret))
    except ValueError as exc:
        structlog.get_logger("proponent").error("request failed", exc_info=exc)
    [line] = lines(capsys)
    assert secret not in line["exception"]


def test_warnings_of_the_server_are_json_too_and_its_chatter_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request: %s", "x")
    try:
        raise OSError("broken")
    except OSError:
        logging.getLogger("asyncio").exception("a task failed")
    warning, failure = lines(capsys)
    assert (warning["event"], warning["level"]) == ("Invalid HTTP request: x", "warning")
    assert (failure["event"], failure["level"]) == ("a task failed", "error")
    assert failure["exception"].endswith("OSError: broken")
    assert "timestamp" in warning


def test_configuring_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    configure_logs()
    logging.getLogger("x").warning("once")
    assert [line["event"] for line in lines(capsys)] == ["once"]
