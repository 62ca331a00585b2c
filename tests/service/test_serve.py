"""``proponent serve``: which addresses it listens on, what it says first, and that what it says can be pasted."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from indexer import Ask
from indexer.errors import SettingsError
from service import serve as module
from service.engine import WarmEngine
from service.schemas import QueryAnswer
from service.serve import _refuse_public, _welcome, serve
from tests.service.fake import FakeEngine

ROOT = Path(__file__).parent.parent.parent
START = 60.0  # seconds to import, verify and warm up, on a busy machine
TASK = "from tests.tiny import tiny_task\ntask = tiny_task()\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_word(host: str) -> None:
    _refuse_public(host, allowed=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "8.8.8.8", "example.org", "localhost.evil.org", ""])
def test_an_address_that_others_can_reach_needs_a_word(host: str) -> None:
    with pytest.raises(SettingsError, match="others could reach this address, and there is no access control yet"):
        _refuse_public(host, allowed=False)
    _refuse_public(host, allowed=True)


def test_a_public_address_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(SettingsError, match=r"--host 0\.0\.0\.0: .* or say --allow-public behind a proxy"):
        serve(Path("no such folder"), "no:task", host="0.0.0.0")


def test_the_engine_is_open_before_the_server_listens(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[dict[str, Any]] = []

    def run(app: Any, **options: Any) -> None:
        with TestClient(app) as client:
            ran.append(options | {"settings": app.state.settings, "status": client.get("/readyz").status_code})

    monkeypatch.setattr(module, "configure_logs", lambda: None)
    monkeypatch.setattr(module, "open_engine", lambda indexes, task: engine)
    monkeypatch.setattr(uvicorn, "run", run)
    monkeypatch.setenv("PROPONENT_MAX_K", "12")
    serve(Path("indexes"), "digits.py:task", port=8321)
    [options] = ran
    settings = options.pop("settings")
    assert (settings.indexes, settings.task, settings.max_k) == (Path("indexes"), "digits.py:task", 12)
    assert options == {
        "host": "127.0.0.1",
        "port": 8321,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 10,
        "status": 200,
    }
    assert engine.closed == 1
    assert capsys.readouterr().out.startswith("serving fake: 3 training examples, version 1111111111111111\n")


def test_the_welcome_names_every_index_and_asks_about_the_first_test_example(ask: Ask) -> None:
    lines = _welcome(WarmEngine({"b": ask, "a": ask}), "http://127.0.0.1:8000").splitlines()
    version = ask.index.version.version
    assert lines[:2] == [f"serving {name}: 300 training examples, version {version}" for name in "ab"]
    assert lines[2:4] == [
        "open   http://127.0.0.1:8000/       the page of pictures",
        "open   http://127.0.0.1:8000/docs   the API",
    ]
    assert lines[4].startswith("try    curl -s http://127.0.0.1:8000/v1/indexes/a/query ")
    assert '"split": "test", "id": "0"' in lines[4]


def test_an_address_of_ipv6_stands_in_brackets(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "configure_logs", lambda: None)
    monkeypatch.setattr(module, "open_engine", lambda indexes, task: engine)
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: None)
    serve(Path("indexes"), "digits.py:task", host="::1", port=8321)
    assert "curl -s http://[::1]:8321/v1/indexes/fake/query" in capsys.readouterr().out


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
    return number


@pytest.fixture
def server(tmp_path: Path, index_folder: Path, port: int) -> Iterator["subprocess.Popen[str]"]:
    """A real server of the tiny index, in a process of its own."""
    (tmp_path / "digits.py").write_text(TASK)
    shutil.copytree(index_folder, tmp_path / "indexes" / "tiny")
    program = "from service.cli import main; main()"
    options = ["serve", str(tmp_path / "indexes"), "--task", f"{tmp_path / 'digits.py'}:task", "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-c", program, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(port: int, process: "subprocess.Popen[str]") -> None:
    """Return when the server takes connections."""
    end = time.monotonic() + START
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"no server on port {port} after {START} seconds")


def test_the_line_to_paste_gives_ten_and_ten_and_the_server_goes_when_it_is_told(
    server: "subprocess.Popen[str]", port: int
) -> None:
    assert server.stdout is not None
    welcome = [server.stdout.readline() for _ in range(4)]
    line = welcome[-1].removeprefix("try ").strip()
    wait_for(port, server)
    pasted = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=START, check=False)
    assert pasted.returncode == 0, (line, pasted.stderr)
    answer = QueryAnswer.model_validate_json(pasted.stdout)
    assert len(answer.proponents or ()) == len(answer.opponents or ()) == 10

    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=START)
    assert out == ""
    [request] = [json.loads(line) for line in err.splitlines()]
    assert (request["event"], request["path"], request["status"]) == ("request", "/v1/indexes/tiny/query", 200)
    assert request["request_id"] == answer.id
