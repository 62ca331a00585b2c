"""Files of pictures, for every command that draws one: which there can be, and matplotlib, which is optional."""

from pathlib import Path
from typing import Any

from indexer.errors import BuildError, MissingExtraError

SUFFIXES = (".png", ".svg", ".pdf")
DOTS = 150  # an inch, of PNG


def check_picture(path: Path) -> None:
    """Refuse a file that cannot be drawn to, before anything is computed for it.

    Raises:
        BuildError: it does not end as a picture does.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise BuildError(
            f"expected a picture, a file that ends in .png, .svg or .pdf; found {str(path)!r}. "
            f"Draw to {str(path.with_suffix('.png'))!r}"
        )
    new_figure(1.0, 1.0)


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure; width, height: inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as exc:
        raise MissingExtraError("plots need matplotlib: pip install 'proponent[plot]'") from exc
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure, and the folder above it where it is not there; the suffix chooses PNG, SVG or PDF."""
    check_picture(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS)
