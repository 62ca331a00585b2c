"""Which files can be drawn to, and what is said of the others."""

import sys
from pathlib import Path

import pytest

from indexer.errors import BuildError, MissingExtraError
from indexer.evaluate.pictures import SUFFIXES, check_picture, new_figure, save_figure

STARTS = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG"])
def test_the_suffix_chooses_the_kind(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"a{suffix}"
    check_picture(path)
    assert not path.exists()
    save_figure(new_figure(2.0, 1.0), path)
    assert path.read_bytes().startswith(STARTS[suffix.lower()])


def test_inches_are_of_150_dots(tmp_path: Path) -> None:
    save_figure(new_figure(2.0, 1.0), tmp_path / "a.png")
    width, height = (int.from_bytes((tmp_path / "a.png").read_bytes()[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (300, 150)


@pytest.mark.parametrize(("name", "advice"), [("choice", "choice.png"), ("a.jpeg", "a.png"), ("v1.2", "v1.png")])
def test_another_is_refused_with_one_that_does(name: str, advice: str, tmp_path: Path) -> None:
    expected = (
        rf"expected a picture, a file that ends in \.png, \.svg or \.pdf; found '.*{name}'\. Draw to '.*{advice}'"
    )
    with pytest.raises(BuildError, match=expected):
        check_picture(tmp_path / name)
    with pytest.raises(BuildError, match=expected):
        save_figure(new_figure(2.0, 1.0), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"plots need matplotlib: pip install 'proponent\[plot\]'"):
        check_picture(Path("a.png"))
