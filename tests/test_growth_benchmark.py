"""The benchmark of growth: what follows from what was measured, the files, and a tiny run from end to end."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks import growth, noise_runs
from benchmarks.fit_stage import Fit, fit_here
from benchmarks.growth import Built, Searched, built, main, on_paper, panels, seconds_a_row, table, write_csv
from benchmarks.growth_plot import Line, Panel, plot_panels
from benchmarks.noise_runs import SETTINGS, Images
from benchmarks.scale_data import Stored, trained
from indexer.projection.pca import DEFAULT_BYTES
from indexer.recipes import mnist
from indexer.recipes.train import Schedule
from tests.stored import WIDTH, few_stored

ROWS, TESTS = 60, 12
OF = [
    Searched(1_000, "flat", 1.0, 2.0, 0.5, 0.1, 0, 512_000, 0),
    Searched(100_000, "prefix", 2.0, 4.0, 50.0, 5.0, 9, 51_200_000, 15_000_000),
    Searched(1_000_000, "prefix", 3.8, 9.0, 300.0, 50.0, 9, 512_000_000, 150_000_000),
]
BUILDS = [Built(10_000, 20.0, 5_120_000, 0, 11_000_000, 3), Built(60_000, 70.0, 30_720_000, 0, 61_000_000, 3)]


def few_digits(folder: Path) -> Images:
    """The first right digits of the shipped sample, whatever the folder."""
    arrays = mnist.sample()
    names = [str(digit) for digit in range(10)]
    return Images(
        arrays["x_train"][:ROWS], arrays["true_train"][:ROWS], arrays["x_test"][:TESTS], arrays["y_test"][:TESTS], names
    )


def test_a_row_more_costs_what_it_costs_between_the_largest() -> None:
    """By hand: 1 ms a row of a build; 2 us of a question and 50 us of a fit for each of 999 million rows more."""
    assert seconds_a_row(BUILDS) == pytest.approx(1e-3)
    assert on_paper(10**9, OF, BUILDS) == {
        "rows": "1,000,000,000",
        "vectors": "512 GB",
        "search": "150 GB",
        "examples with pictures": "1,000 GB",
        "a question, one thread": "2.00 s",
        "gradients, one thread": "278 h",
        "the search's fit": "13.9 h",
        "machines of 16 threads for a day": "1",
    }
    assert on_paper(10**10, OF, BUILDS)["machines of 16 threads for a day"] == "8"


def test_what_does_not_rise_is_not_taken_to_fall() -> None:
    of = [OF[0], dataclasses.replace(OF[1], p50_ms=5.0, fit_seconds=60.0), OF[2]]
    assert on_paper(10**9, of, BUILDS)["a question, one thread"] == "0.00 s"
    assert on_paper(10**9, of, BUILDS)["the search's fit"] == "0.0 h"


def test_panels_show_what_was_measured_and_how_it_goes_on() -> None:
    question, build, files = panels(OF, BUILDS)
    assert question.lines[1].values == [1.0, 2.0, 3.8] and question.lines[2].values == [2.0, 4.0, 9.0]
    assert build.lines[1] == Line("at its time a row", [60_000, 100_000, 1_000_000], [70.0, 110.0, 1010.0], "C0:")
    assert files.lines[1] == Line("search", [100_000, 1_000_000], [15_000_000, 150_000_000])


def test_files_keep_every_number(tmp_path: Path) -> None:
    write_csv(OF, tmp_path / "made" / "growth.csv")
    with (tmp_path / "made" / "growth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["rows"], row["kind"], row["p50_ms"]) for row in rows] == [
        ("1000", "flat", "1"),
        ("100000", "prefix", "2"),
        ("1000000", "prefix", "3.8"),
    ]
    plot_panels([Panel("Time", "seconds", [Line("search", [1, 10], [0.1, 0.2])])], tmp_path / "made" / "growth.png")
    assert (tmp_path / "made" / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_tables_have_a_column_a_name() -> None:
    assert table([{"rows": "1", "kind": "flat"}, {"rows": "2", "kind": "prefix"}]).splitlines() == [
        "| rows | kind |",
        "|---|---|",
        "| 1 | flat |",
        "| 2 | prefix |",
    ]


def test_a_build_is_weighed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few digits, built as all are: every file has its place in the sum."""
    schedule = Schedule(epochs=1, keep=(1,), learning_rate=0.1, batch_size=20)
    setting = dataclasses.replace(SETTINGS["mnist"], read=few_digits, schedule=schedule)
    monkeypatch.setitem(noise_runs.SETTINGS, "mnist", setting)
    one = built(tmp_path, trained(tmp_path, tmp_path, lambda _: None), 30)
    assert (one.rows, one.vectors_bytes, one.search_bytes) == (30, 30 * DEFAULT_BYTES, 0)
    assert one.seconds > 0 and min(one.examples_bytes, one.other_bytes) > 0


def test_the_whole_benchmark_runs(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit_apart(stored: Stored, queries: Path) -> Fit:
        return Fit(fit_here(stored, np.load(queries)), 0, 0, 0)

    real = few_stored(tmp_path, 30, rng)
    queries = rng.normal(size=(8, WIDTH)).astype(np.float32)
    np.save(tmp_path / "queries.npy", queries)
    monkeypatch.setattr(growth, "trained", lambda *_: tmp_path)
    monkeypatch.setattr(growth, "built", lambda data, run, rows: dataclasses.replace(BUILDS[0], rows=rows))
    monkeypatch.setattr(growth, "real_rows", lambda *_: real)
    monkeypatch.setattr(growth, "fit_apart", fit_apart)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    figures = tmp_path / "figures"
    assert main(["--work", str(tmp_path), "--figures", str(figures), "--rows", "40,50", "--built", "30,60"]) == 0
    said = capsys.readouterr().out
    assert "| 30 |" in said and "| 60 |" in said and "| 40 | flat |" in said and "| 1,000,000,000 |" in said
    assert sorted(path.name for path in figures.iterdir()) == ["growth.csv", "growth.png", "growth_builds.csv"]
