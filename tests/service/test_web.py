"""The page of pictures in a real browser: it asks the served API and draws ten cards a side."""

import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
import uvicorn
from fastapi import Response

from indexer import Ask, Task
from service.app import create_app
from service.engine import WarmEngine
from service.settings import Settings
from tests.test_image import free_port

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
COUNTER = """<!doctype html><body><proponent-panel></proponent-panel>
<script type="module" src="/static/panel.js"></script>
<script>
setInterval(() => {
  const root = document.querySelector("proponent-panel").shadowRoot;
  const drawn = (image) => image.complete && image.naturalWidth;
  const pictures = root ? [...root.querySelectorAll("img")].filter(drawn) : [];
  document.body.dataset.pictures = pictures.length;
}, 50);
</script></body>"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine: the page was not drawn")
def test_the_page_draws_the_query_and_twenty_hits(index_folder: Path, task: Task, tmp_path: Path) -> None:
    engine, port = WarmEngine({"tiny": Ask.open(index_folder, task)}), free_port()
    app = create_app(lambda: engine, Settings(indexes=index_folder, task="unused:task"))
    app.add_api_route("/count", lambda: Response(COUNTER, media_type="text/html"), include_in_schema=False)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        address = f"http://127.0.0.1:{port}/count#index=tiny&split=test&id=3&k=10"
        quiet = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=8000",
        ]
        done = subprocess.run(
            [BROWSER or "", *quiet, "--dump-dom", address], capture_output=True, text=True, timeout=60, check=True
        )
    finally:
        server.should_exit = True
        thread.join()
    assert re.findall(r'data-pictures="(\d+)"', done.stdout) == ["21"]
