"""The steps of the Dockerfile, followed in an empty folder: what it copies is enough to install and serve the demo.

The quick test runs every step but the installation, with the copied sources first on the path; the slow one installs
them into a fresh environment, as the image does.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
TEXT = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
STEPS = re.findall(r"^([A-Z]+) (.*)$", TEXT, flags=re.MULTILINE)
LAST = dict(STEPS)


class Image:
    """A folder that stands for the image's file system, and the environment of its processes."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root = root
        self.environment = environment
        self.folder = root

    def follow(self, *, install: bool) -> None:
        """Follow every step that makes the image."""
        for word, rest in STEPS:
            if word == "WORKDIR":
                self.folder = self.root / rest.lstrip("/")
                self.folder.mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                *sources, target = rest.split()
                for source in sources:
                    copy(source, self.folder / target)
            elif word == "RUN" and "useradd" not in rest and (install or "pip install" not in rest):
                self.run(rest)

    def run(self, command: str) -> str:
        """Run a shell command in the current folder of the image."""
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def serving(self, port: int) -> Iterator[None]:
        """Start what CMD says, on a free loopback port, and wait until HEALTHCHECK says that it is ready."""
        command = [word.replace("0.0.0.0", "127.0.0.1") for word in json.loads(LAST["CMD"])]
        command[0] = str(Path(self.environment["PATH"].split(os.pathsep)[0]) / command[0])
        check = json.loads(LAST["HEALTHCHECK"].split("CMD ", 1)[1])
        check = [sys.executable, *(word.replace("8000", str(port)) for word in check[1:])]
        server = subprocess.Popen(
            [*command, "--port", str(port)], cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 60
            while subprocess.run(check, capture_output=True, check=False).returncode != 0:
                assert server.poll() is None and time.monotonic() < deadline, "the server does not become ready"
                time.sleep(0.3)
            yield
        finally:
            server.terminate()
            assert server.wait(timeout=20) in (0, -signal.SIGTERM)  # uvicorn ends well, then repeats the signal


def copy(source: str, target: Path) -> None:
    """Copy what git tracks of a file or folder, if .dockerignore lets it into the context."""
    allowed = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert f"!{source.removeprefix('./')}" in allowed, f".dockerignore keeps {source!r} out of the image"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", source],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        place = target / Path(name).relative_to(source) if (REPOSITORY / source).is_dir() else target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((REPOSITORY / name).read_bytes())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def ask(port: int) -> dict[str, list[object]]:
    """Ask the served demo one question."""
    body = {"example": {"modality": "id", "split": "test", "id": "17"}, "k": 10}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/indexes/mnist/query",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, list[object]] = json.load(answer)
        return found


@pytest.mark.slow
def test_what_is_copied_is_enough_to_make_and_serve_the_demo(tmp_path: Path) -> None:
    programs = str(Path(sys.executable).parent)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    image = Image(tmp_path, {**os.environ, "PATH": path, "PYTHONPATH": str(tmp_path / "app")})
    image.follow(install=False)
    where = image.run('python -c "import indexer, service; print(indexer.__file__, service.__file__)"')
    assert where.split() == [str(tmp_path / "app" / name / "__init__.py") for name in ("indexer", "service")]
    port = free_port()
    with image.serving(port):
        answer = ask(port)
    assert len(answer["proponents"]) == len(answer["opponents"]) == 10
    noise = image.run("proponent evaluate noise indexes/mnist --true-labels indexer.recipes.mnist:true_labels")
    [found] = re.findall(r"in the first  10% by self-influence: +([0-9.]+)% found", noise)
    assert float(found) >= 50  # five times chance


@pytest.mark.slow
def test_the_image_installs_and_serves_the_demo_in_an_empty_folder(tmp_path: Path) -> None:
    venv.create(tmp_path / "python", with_pip=True)
    empty = tmp_path / "no-other-index"
    empty.mkdir()
    path = f"{tmp_path / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    image = Image(tmp_path, {**clean, "PATH": path, "TORCH_INDEX_URL": empty.as_uri()})
    image.follow(install=True)
    port = free_port()
    with image.serving(port):
        answer = ask(port)
    assert len(answer["proponents"]) == len(answer["opponents"]) == 10


def test_the_image_does_not_run_as_root() -> None:
    words = [word for word, _ in STEPS]
    assert LAST["USER"] not in ("root", "0")
    assert words.index("USER") < words.index("CMD")


def test_compose_builds_this_image_and_is_reachable_from_this_machine_only() -> None:
    file = REPOSITORY / "docker" / "compose.yaml"
    service = yaml.safe_load(file.read_text())["services"]["proponent"]
    assert (file.parent / service["build"]["context"] / "Dockerfile").resolve() == REPOSITORY / "Dockerfile"
    assert service["ports"] == ["127.0.0.1:8000:8000"]
