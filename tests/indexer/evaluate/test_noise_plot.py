"""Pictures of label noise: their kinds, sizes and words, and what they need."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.errors import MissingExtraError
from indexer.evaluate.label_noise import ClassFound, noise_curve
from indexer.evaluate.noise_plot import plot_by_class, plot_noise

PNG = b"\x89PNG\r\n\x1a\n"
CURVES = {
    "by self-influence": noise_curve(np.array([True, False, True, False])),
    "by loss": noise_curve(np.array([False, False, True, True])),
}
CLASSES = {
    "epoch 1": [ClassFound("cat", 1, 4), ClassFound("dog", 3, 4)],
    "epoch 9": [ClassFound("cat", 4, 4), ClassFound("dog", 2, 4)],
}


def curves(path: Path) -> None:
    plot_noise(CURVES, "Wrong labels found, tiny", path)


def classes(path: Path) -> None:
    plot_by_class(CLASSES, 0.1, "By one checkpoint, tiny", path)


@pytest.mark.parametrize(("plot", "size"), [(curves, (825, 675)), (classes, (1200, 600))])  # inches x 150 dots
def test_the_suffix_chooses_the_kind_of_picture(
    plot: Callable[[Path], None], size: tuple[int, int], tmp_path: Path
) -> None:
    for name, start in (("a.png", PNG), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")):
        plot(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    drawn = (tmp_path / "a.png").read_bytes()
    assert tuple(int.from_bytes(drawn[at : at + 4], "big") for at in (16, 20)) == size


@pytest.mark.parametrize(
    ("plot", "words"),
    [
        (curves, [*CURVES, "Wrong labels found, tiny", "best possible", "at random", "inspected (%)"]),
        (classes, [*CLASSES, "By one checkpoint, tiny", "cat", "dog", "at random", "found in the first 10% (%)"]),
    ],
)
def test_the_picture_says_what_it_shows(
    plot: Callable[[Path], None], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import rcParams

    monkeypatch.setitem(rcParams, "svg.fonttype", "none")  # text as text
    plot(tmp_path / "a.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert [word for word in words if word not in drawn] == []


@pytest.mark.parametrize("plot", [curves, classes])
def test_without_matplotlib_the_extra_is_named(
    plot: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"plots need matplotlib: pip install 'proponent\[plot\]'"):
        plot(tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
