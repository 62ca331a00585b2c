"""The benchmark of search: what mixtures are, what counts as found, and a tiny run from end to end."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import fit_stage, noise_runs, search_scale
from benchmarks.answers import Found, exact_bounds, first, recall
from benchmarks.fit_stage import Fit, fit_here, search_entry, stage_bytes
from benchmarks.mixtures import CHUNK, NOISE, mixture_chunk, mixture_chunks
from benchmarks.noise_runs import SETTINGS, Images
from benchmarks.resources import memory_of, watched
from benchmarks.scale_data import Stored, digits_task, in_place, mixtures, questions, read_stored, real_rows
from benchmarks.search_scale import Measured, Timed, flat_index, main, measure, one_thread, table
from indexer.index.code import Code
from indexer.index.search.candidates import Candidates
from indexer.recipes import mnist
from indexer.recipes.train import Schedule

ROWS, TESTS, MIXED = 100, 24, 300
ROUNDED = 1e-5  # float32 of a sum of about 1,000 products
SURE = 0.05  # of a variance over 10,000 draws: more than three times its deviation


def few_digits(folder: Path) -> Images:
    """The first right digits of the shipped sample, whatever the folder."""
    arrays = mnist.sample()
    names = [str(digit) for digit in range(10)]
    return Images(
        arrays["x_train"][:ROWS], arrays["true_train"][:ROWS], arrays["x_test"][:TESTS], arrays["y_test"][:TESTS], names
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of work with an index of few digits, its questions and mixtures."""
    schedule = Schedule(epochs=2, keep=(1, 2), learning_rate=0.1, batch_size=10)
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            noise_runs.SETTINGS, "mnist", dataclasses.replace(SETTINGS["mnist"], read=few_digits, schedule=schedule)
        )
        torch.set_num_threads(1)
        real = real_rows(folder, folder, lambda _: None)
        questions(folder, folder)
        mixtures(real, MIXED, folder)
    return folder


@pytest.fixture
def mixed(work: Path) -> Stored:
    return read_stored(work / f"mixtures-{MIXED}-seed-0")


def test_mixtures_of_one_row_are_that_row() -> None:
    """Weights add up to 1, and a coordinate that does not spread has no noise."""
    row = np.array([1.0, -2.0, 0.5], dtype=np.float32)
    [chunk] = mixture_chunks(np.tile(row, (7, 1)), 40)
    np.testing.assert_allclose(chunk, np.tile(row, (40, 1)), rtol=ROUNDED)


def test_mixtures_spread_as_three_weights_and_noise_make_them() -> None:
    """Of independent rows of variance 1 a mixture has E[w'w] = 3 * 1/6, and the noise is beside it."""
    vectors = np.array([[1.0], [-1.0]], dtype=np.float32)
    [chunk] = mixture_chunks(vectors, CHUNK)
    assert chunk.var() == pytest.approx(0.5 + NOISE**2, rel=SURE)
    assert np.abs(chunk).max() > 1  # only noise leads out of the rows' range


def test_a_chunk_can_be_made_alone_and_fewer_rows_are_the_first_of_more(rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(30, 4)).astype(np.float32)
    spread = vectors.std(axis=0, dtype=np.float64).astype(np.float32)
    chunks = list(mixture_chunks(vectors, CHUNK + 5, seed=3))
    np.testing.assert_array_equal(chunks[1], mixture_chunk(vectors, spread, 3, 1)[:5])
    np.testing.assert_array_equal(chunks[0][:9], next(mixture_chunks(vectors, 9, seed=3)))
    assert not (chunks[0][:5] == chunks[1]).any()
    assert not (next(mixture_chunks(vectors, 9, seed=4)) == chunks[0][:9]).any()


def test_stored_mixtures_are_those_of_the_stored_rows(work: Path, mixed: Stored) -> None:
    real = read_stored(work / "real").open()
    code = real.code
    assert code is not None
    of = np.concatenate(list(real))[:, code.order]
    expected = in_place(next(mixture_chunks(of, MIXED)), code)
    scales = np.linalg.norm(expected, axis=1)
    store = mixed.open()
    np.testing.assert_array_equal(
        np.concatenate([records for _, records in store.pieces(MIXED)]), code.encode(expected, scales)
    )
    assert len(store) == MIXED and store.code is not None and (store.code.bits == code.bits).all()


def test_values_go_back_to_their_places() -> None:
    code = Code(np.array([4, 0, 8], dtype=np.uint8), np.array([1, 0, 1], dtype=np.float32))
    assert in_place(np.array([[5, 7]], dtype=np.float32), code).tolist() == [[7, 0, 5]]


def test_bounds_are_those_of_all_products_in_float64(work: Path, mixed: Stored) -> None:
    store, queries = mixed.open(), np.load(work / "queries.npy")
    scores = queries.astype(np.float64) @ np.concatenate(list(store)).astype(np.float64).T
    bounds = exact_bounds(store, queries, 10)
    for direction, slow in zip(bounds, (np.sort(scores)[:, -10], np.sort(-scores)[:, -10]), strict=True):
        np.testing.assert_allclose(direction, slow, rtol=ROUNDED)


def test_the_first_of_candidates_are_in_the_order_of_their_products(work: Path, mixed: Stored) -> None:
    store, query = mixed.open(), np.load(work / "queries.npy")[0]
    candidates = Candidates(list(range(40)), list(range(30, 90)), exhaustive=False)
    found = first(store, query, candidates, 5)
    scores = store.rows(range(90)).astype(np.float64) @ query.astype(np.float64)
    assert found.positions[0] == sorted(range(40), key=lambda row: -scores[row])[:5]
    assert found.positions[1] == sorted(range(30, 90), key=lambda row: scores[row])[:5]
    np.testing.assert_allclose(found.scores[0], scores[found.positions[0]], rtol=ROUNDED)
    np.testing.assert_allclose(found.scores[1], -scores[found.positions[1]], rtol=ROUNDED)


def test_a_row_counts_as_found_down_to_a_tie_with_the_last_exact_one() -> None:
    found = Found(([1, 2], [3, 4]), (np.array([3.0, 2.0 - 1e-5]), np.array([-1.0, -1.001])))
    assert recall(found, np.array([2.0, -1.0]), 2) == (1.0, 0.5)
    assert recall(found, np.array([4.0, -2.0]), 2) == (0.0, 1.0)


def test_the_base_scans_what_is_stored(work: Path, mixed: Stored) -> None:
    store, queries = mixed.open(), np.load(work / "queries.npy")
    assert store.code is not None
    found, _ = flat_index(store).search(np.ascontiguousarray(queries[:, store.code.order]), 10)
    np.testing.assert_allclose(found[:, -1], exact_bounds(store, queries, 10)[0], rtol=ROUNDED)


def test_everything_is_measured(work: Path, mixed: Stored) -> None:
    queries = np.load(work / "queries.npy")
    assert fit_here(mixed, queries) > 0
    measured = measure("mixtures", mixed, queries, Fit(1.0, 0, 0, 0), faiss_queries=5, rounds=2)
    times, asked = measured.times, TESTS // 2
    assert (len(times.flat), len(times.ours), len(times.search)) == (5, asked, asked)
    assert all(0 < alone < whole for alone, whole in zip(times.search, times.ours, strict=True))
    assert (measured.rows, measured.recall, measured.proven) == (MIXED, (1.0, 1.0), 1.0)
    assert measured.bytes_per_row == (mixed.open().row_bytes, stage_bytes(search_entry(mixed)) / MIXED)


@pytest.mark.parametrize(
    ("flat", "ours", "found", "passes"),
    [
        ([20.0, 20.0], [1.0, 1.0], (0.99, 1.0), True),
        ([19.0, 19.0], [1.0, 1.0], (1.0, 1.0), False),
        ([20.0, 20.0], [0.1, 1.2], (1.0, 1.0), False),  # p99 alone
        ([20.0, 20.0], [1.0, 1.0], (1.0, 0.98), False),
    ],
)
def test_both_bars_hold_for_both_percentiles_and_both_directions(
    flat: list[float], ours: list[float], found: tuple[float, float], passes: bool
) -> None:
    times = Timed(flat, [*ours, 99.0], [*ours, 99.0])  # the third question was not put to FAISS
    measured = Measured("mixtures", 10, times, found, 1.0, Fit(2.0, 2**21, 0, 0), (512, 150))
    assert measured.passes is passes
    assert f"| {found[0]:.4f} / {found[1]:.4f} | 100.0% | 2 s | 2 MiB | 512 + 150 |" in table([measured])


def test_times_of_several_threads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with pytest.raises(SystemExit, match="set OMP_NUM_THREADS=1"):
        one_thread()


def test_a_child_is_watched_while_it_runs() -> None:
    """It holds 64 MiB of its own for a while."""
    used = watched(["python3", "-c", "import time; held = b'x' * 2**26; time.sleep(0.2); print(len(held))"])
    assert int(used.said) == 2**26
    assert used.anonymous > 2**26 and used.mapped > 0 and used.seconds > 0.2
    assert memory_of()["RssAnon"] > 0 and memory_of(2**30) == {"RssAnon": 0, "RssFile": 0}


def test_the_whole_benchmark_runs(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit_apart(stored: Stored, queries: Path) -> Fit:
        return Fit(fit_here(stored, np.load(queries)), 0, 0, 0)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(search_scale, "fit_apart", fit_apart)
    assert (
        main(["--work", str(work), "--rows", str(MIXED), "--rounds", "1", "--faiss", "2"]) == 1
    )  # so few are not faster
    said = capsys.readouterr().out
    assert f"| {ROWS} real |" in said and f"| {MIXED} mixtures |" in said
    assert said.count("1.0000 / 1.0000 | 100.0%") == 4


def test_a_fit_that_was_done_is_read(work: Path, mixed: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_stage, "watched", lambda command: pytest.fail(f"{command} was run again"))
    kept = mixed.folder / fit_stage.TOOK
    kept.write_text('{"seconds": 2.5, "anonymous": 3, "mapped": 4, "idle": 5}')
    assert fit_stage.fit_apart(mixed, work / "queries.npy") == Fit(2.5, 3, 4, 5)
    kept.unlink()


def test_a_task_of_some_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(noise_runs.SETTINGS, "mnist", dataclasses.replace(SETTINGS["mnist"], read=few_digits))
    task = digits_task(tmp_path, rows=7, tests=3)
    assert (len(task.train), len(task.split("test") or ())) == (7, 3)
    assert (len(digits_task(tmp_path).train), len(digits_task(tmp_path).split("test") or ())) == (ROWS, TESTS)
