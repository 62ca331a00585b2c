"""How a long piece of work says how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # (stage, done, total), called after every batch


def silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""
