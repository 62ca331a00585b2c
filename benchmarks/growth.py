"""How time and bytes grow with the rows of an index, from a thousand to a million, as tables and a picture.

    OMP_NUM_THREADS=1 PROPONENT_DATA=data python -m benchmarks.growth --work work

Search: the first so many of one set of mixtures (`benchmarks.mixtures`), each fitted apart and asked the questions of
`benchmarks.search_scale`. Builds: whole ones of the first so many real digits, at five checkpoints. Both are written to
benchmarks/figures as CSV, with growth.png. At last what follows for more rows than were measured: a row more costs
what it costs between the two largest sets.
"""

import argparse
import csv
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.answers import Queries
from benchmarks.fit_stage import Fit, fit_apart, fitted_search, search_entry, stage_bytes
from benchmarks.growth_plot import Line, Panel, plot_panels
from benchmarks.scale_data import Stored, asked_half, digits_task, mixtures, questions, real_rows, trained, tuning_half
from benchmarks.search_scale import WARM, one_thread, percentiles, timed
from indexer import BuildSpec, build

ROWS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
BUILT = (1_000, 10_000, 60_000)
ASKED, OF_FAISS, ROUNDS = 200, 50, 3  # questions of ours, and of FAISS; times each
FIGURES = Path(__file__).parent / "figures"
TESTS = 1_000  # test digits whose previews an index keeps
DAY, THREADS = 86_400, 16


@dataclass(frozen=True, slots=True)
class Searched:
    """The search of so many rows: milliseconds of a question, what its fit took, and its bytes beside the vectors'."""

    rows: int
    kind: str
    p50_ms: float
    p99_ms: float
    faiss_p50_ms: float
    fit_seconds: float
    fit_bytes_of_memory: int
    vectors_bytes: int
    search_bytes: int


@dataclass(frozen=True, slots=True)
class Built:
    """A whole build of so many digits: its seconds, and the bytes of what it wrote."""

    rows: int
    seconds: float
    vectors_bytes: int
    search_bytes: int
    examples_bytes: int
    other_bytes: int


def searched(stored: Stored, queries: Queries, fit: Fit) -> Searched:
    """Ask the search of one set of rows."""
    store, entry = stored.open(), search_entry(stored)
    search = fitted_search(stored, store)
    for query in tuning_half(queries)[:WARM]:
        search.search(query[None], 10)
    times = timed(store, search, asked_half(queries)[:ASKED], OF_FAISS, ROUNDS)
    (p50, p99), (flat, _) = percentiles(times.ours), percentiles(times.flat)
    sizes = (len(store) * store.row_bytes, stage_bytes(entry))
    return Searched(len(store), entry.kind, p50, p99, flat, fit.seconds, fit.anonymous, *sizes)


def built(data: Path, run: Path, rows: int) -> Built:
    """Build an index of the first so many digits and look at what is there."""
    task = digits_task(data, rows, TESTS)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        manifest = build(task, BuildSpec(run), Path(scratch) / "index").manifest
        seconds = time.perf_counter() - start
    vectors, search = sum(s.object.bytes for s in manifest.vectors.shards), stage_bytes(manifest.search)
    examples = sum(entry.object.bytes for entry in manifest.examples)
    everything = sum(ref.bytes for ref in manifest.objects().values())
    return Built(rows, seconds, vectors, search, examples, everything - vectors - search - examples)


def seconds_a_row(builds: Sequence[Built]) -> float:
    """Return what a row more costs a build, between the two largest."""
    return (builds[-1].seconds - builds[-2].seconds) / (builds[-1].rows - builds[-2].rows)


def on_paper(rows: int, of: Sequence[Searched], builds: Sequence[Built]) -> dict[str, str]:
    """Return what follows for so many rows, by what a row more costs between the two largest sets of each kind."""
    last, before, build = of[-1], of[-2], builds[-1]
    more, apart = rows - last.rows, last.rows - before.rows
    question = last.p50_ms + more * max(0, last.p50_ms - before.p50_ms) / apart
    fit = last.fit_seconds + more * max(0, last.fit_seconds - before.fit_seconds) / apart
    vectors, search = build.vectors_bytes / build.rows * rows, last.search_bytes / last.rows * rows
    examples = build.examples_bytes / (build.rows + TESTS) * rows
    gradients = seconds_a_row(builds) * rows
    return {
        "rows": f"{rows:,}",
        "vectors": f"{vectors / 1e9:,.0f} GB",
        "search": f"{search / 1e9:,.0f} GB",
        "examples with pictures": f"{examples / 1e9:,.0f} GB",
        "a question, one thread": f"{question / 1e3:.2f} s",
        "gradients, one thread": f"{gradients / 3600:,.0f} h",
        "the search's fit": f"{fit / 3600:,.1f} h",
        f"machines of {THREADS} threads for a day": f"{math.ceil(gradients / THREADS / DAY):,}",
    }


def panels(of: Sequence[Searched], builds: Sequence[Built]) -> list[Panel]:
    """Return what is drawn: a question, a build and what it writes, over the rows."""
    rows, built_rows = [one.rows for one in of], [one.rows for one in builds]
    return [
        Panel(
            "A question, k = 10 both ways",
            "milliseconds, p50 (dashed: p99), one thread",
            [
                Line("FAISS, IndexFlatIP", rows, [one.faiss_p50_ms for one in of], "s-"),
                Line("the index's search", rows, [one.p50_ms for one in of]),
                Line("_", rows, [one.p99_ms for one in of], "C1--"),
            ],
        ),
        Panel(
            "Build",
            "seconds, one thread",
            [
                Line("a whole build, MNIST", built_rows, [one.seconds for one in builds], "C0s-"),
                Line("at its time a row", *_beyond(rows, builds), "C0:"),
                Line("the search in it", rows, [one.fit_seconds for one in of], "C1o-"),
            ],
        ),
        Panel(
            "Files",
            "bytes",
            [
                Line("vectors", rows, [one.vectors_bytes for one in of]),
                Line("search", *_positive(rows, [one.search_bytes for one in of])),
                Line("examples with pictures", built_rows, [one.examples_bytes for one in builds], "s-"),
            ],
        ),
    ]


def _beyond(rows: Sequence[int], builds: Sequence[Built]) -> tuple[list[int], list[float]]:
    """Return rows beyond the largest build, with it, and the seconds that a build of so many would take."""
    last = builds[-1]
    larger = [last.rows, *(row for row in rows if row > last.rows)]
    return larger, [last.seconds + (row - last.rows) * seconds_a_row(builds) for row in larger]


def _positive(rows: Sequence[int], values: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the values that are not 0, which has no place on a logarithmic axis."""
    kept = [(row, value) for row, value in zip(rows, values, strict=True) if value]
    return [row for row, _ in kept], [value for _, value in kept]


def write_csv(rows: Sequence[Searched] | Sequence[Built], path: Path) -> None:
    """Write a line a set of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(rows[0])], lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _short(value) for name, value in asdict(row).items()} for row in rows)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table of rows that have the same columns."""
    lines = [f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row.values()))} |" for row in rows])


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _shown(row: Searched | Built) -> dict[str, Any]:
    return {name: f"{value:,}" if isinstance(value, int) else _short(value) for name, value in asdict(row).items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder that keeps what is made")
    parser.add_argument("--rows", type=_numbers, default=list(ROWS), help="of mixtures, with commas between")
    parser.add_argument("--built", type=_numbers, default=list(BUILT), help="digits, with commas between, two at least")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="where the picture and the CSV files go")
    options = parser.parse_args(arguments)
    one_thread()
    data, work = Path(os.environ.get("PROPONENT_DATA", "data")), options.work
    run = trained(data, work, _note)
    builds = [built(data, run, rows) for rows in options.built]
    print(table([_shown(row) for row in builds]), flush=True)
    real, queries = real_rows(data, work, _note), questions(data, work)
    of = []
    for rows in options.rows:
        stored = mixtures(real, rows, work)
        of.append(searched(stored, queries, fit_apart(stored, work / "queries.npy")))
        _note(str(of[-1]))
    print(f"\n{table([_shown(row) for row in of])}\n\n{table([on_paper(10**e, of, builds) for e in (8, 9)])}")
    write_csv(of, options.figures / "growth.csv")
    write_csv(builds, options.figures / "growth_builds.csv")
    plot_panels(panels(of, builds), options.figures / "growth.png")
    return 0


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
