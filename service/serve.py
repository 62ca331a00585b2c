"""``proponent serve``."""

import ipaddress
import socket
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from indexer.errors import SettingsError
from service.app import create_app
from service.engine import WarmEngine, open_engine
from service.logs import configure_logs
from service.settings import read_settings


def serve(
    indexes: Annotated[
        Path, typer.Argument(help="A folder of indexes, or one index.", envvar="PROPONENT_INDEXES", metavar="INDEXES")
    ],
    task: Annotated[str, typer.Option(help="The task that they were built with.", envvar="PROPONENT_TASK")],
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="PROPONENT_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", envvar="PROPONENT_PORT")] = 8000,
    allow_public: Annotated[
        bool,
        typer.Option("--allow-public", help="Listen where others can reach it. There is no access control yet."),
    ] = False,
) -> None:
    """Serve indexes over HTTP: the API under /v1, its description at /docs, a page of pictures at /.

    Example: proponent serve indexes/mnist --task indexer.recipes.mnist:task
    """
    _refuse_public(host, allow_public)
    settings = read_settings(indexes=indexes, task=task, host=host, port=port)
    _refuse_taken(host, port)
    configure_logs()
    engine = open_engine(indexes, task)
    typer.echo(_welcome(engine, f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"))
    uvicorn.run(
        create_app(lambda: engine, settings),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def _refuse_public(host: str, allowed: bool) -> None:
    """Listen on loopback unless told otherwise.

    Raises:
        SettingsError: the address is not of the loopback interface.
    """
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and not allowed:
        raise SettingsError(
            f"--host {host}: others could reach this address, and there is no access control yet; "
            "use 127.0.0.1, or say --allow-public behind a proxy that checks who asks"
        )


def _refuse_taken(host: str, port: int) -> None:
    """Find out that the port is taken before minutes of opening, not after.

    Raises:
        SettingsError: the address cannot be listened on.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as exc:
            raise SettingsError(f"cannot listen on {host} port {port} ({exc.strerror}); choose another --port") from exc


def _welcome(engine: WarmEngine, base: str) -> str:
    """Say what is served, what to open and what to paste."""
    lines = []
    for name in engine.names():
        version = engine.version(name)
        lines.append(f"serving {name}: {version.manifest.rows:,} training examples, version {version.version}")
    first = engine.names()[0]
    split = "test" if "test" in engine.version(first).manifest.splits else "train"
    example = engine.examples(first).listing(split, start=0, count=1)[0]
    target = f', "target": {example.label}' if engine.version(first).manifest.task.labels is None else ""
    body = f'{{"example": {{"modality": "id", "split": "{split}", "id": "{example.id}"}}, "k": 10{target}}}'
    lines += [
        f"open   {base}/       the page of pictures",
        f"open   {base}/docs   the API",
        f"try    curl -s {base}/v1/indexes/{first}/query "
        f"-H 'Content-Type: application/json' -d '{body}' | python3 -m json.tool",
    ]
    return "\n".join(lines)
