"""The public surface of the package: what a user may import, and that it says what it is."""

import inspect

import indexer

PUBLIC = [
    "Ask",
    "BuildSpec",
    "CheckpointRecorder",
    "Filter",
    "GivenExample",
    "Hit",
    "ImageCodec",
    "KnownExample",
    "Preview",
    "ProponentError",
    "Question",
    "Ranking",
    "Task",
    "append",
    "build",
    "compact",
    "delete",
    "load_task",
    "relabel",
]


def test_the_public_names_are_pinned() -> None:
    assert indexer.__all__ == PUBLIC


def test_every_public_name_is_there_and_documented() -> None:
    for name in PUBLIC:
        assert inspect.getdoc(getattr(indexer, name)), name


def test_nothing_else_is_public() -> None:
    """Modules become attributes of their package when they are imported; anything else would be an accident."""
    found = {name for name, value in vars(indexer).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert found == set(PUBLIC)
