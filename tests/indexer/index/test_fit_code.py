"""Bits go where they buy most: against a slow search over every choice, and on samples whose answer is known."""

import math
from itertools import product

import numpy as np
import pytest

from indexer.errors import BuildError
from indexer.index.code import Code
from indexer.index.fit_code import CLIPS_4, CLIPS_8, Gains, code_of, coordinate_gains, fit_code, joined

ROUNDING = 1e-9  # relative: both are float64
GAUSSIAN_4 = 0.0115  # least distortion of a uniform quantiser of 16 levels for N(0, 1) (Max 1960, table II)
SAMPLING = 0.1  # relative: of a mean square over 4,000 draws


def slow_gains(column: list[float]) -> tuple[float, float, float, float]:
    """First and second gain and both steps of one coordinate, a number at a time."""
    v = sum(x * x for x in column) / len(column)
    root = math.sqrt(v)

    def distortion(step: float, half: int) -> float:
        values = [(min(max(math.floor(x / step), -half), half - 1) + 0.5) * step for x in column]
        return sum((x - value) ** 2 for x, value in zip(column, values, strict=True)) / len(column)

    d4, step4 = min((distortion(root * clip / 8, 8), root * clip / 8) for clip in CLIPS_4)
    steps8 = [root * clip / 128 for clip in CLIPS_8] + [max(map(abs, column)) / 128]
    d8, step8 = min((distortion(step, 128), step) for step in steps8)
    first = max(0.0, v * (v - d4))
    return first, min(first, max(0.0, v * (d4 - d8))), step4, step8


def sample_of(rng: np.random.Generator, rows: int, width: int) -> np.ndarray:
    """Coordinates of falling size; one of heavy tails, one of none, one that is nearly always zero."""
    found = rng.standard_normal((rows, width)) * np.exp(-np.arange(width))
    found[:, 1] = rng.standard_t(2, rows)
    found[:, 2] = rng.uniform(-0.3, 0.3, rows)
    found[:, 3] = np.where(np.arange(rows) == 5, 2.0, 0)
    return found


def test_gains_are_those_of_the_slow_twin(rng: np.random.Generator) -> None:
    sample = sample_of(rng, 60, 7)
    found = coordinate_gains(sample)
    for j, column in enumerate(sample.T.tolist()):
        expected = slow_gains(column)
        assert (found.first[j], found.second[j], found.step4[j], found.step8[j]) == pytest.approx(
            expected, rel=ROUNDING, abs=0
        )


def test_gains_do_not_depend_on_blocks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = sample_of(rng, 50, 9)
    at_once = coordinate_gains(sample)
    monkeypatch.setattr("indexer.index.fit_code.BLOCK_NUMBERS", 100)
    apart = joined([coordinate_gains(sample[:, :5]), coordinate_gains(sample[:, 5:])])
    for name in ("first", "second", "step4", "step8"):
        assert np.array_equal(getattr(apart, name), getattr(at_once, name)), name


def test_four_bits_of_a_gaussian_are_as_good_as_a_uniform_code_can_be(rng: np.random.Generator) -> None:
    sample = rng.standard_normal((4000, 3)) * [1, 0.01, 30]
    v = np.square(sample).mean(0)
    found = coordinate_gains(sample)
    assert 1 - found.first / v**2 == pytest.approx(np.full(3, GAUSSIAN_4), rel=SAMPLING)
    assert (found.step8 < found.step4 / 8).all()


def test_the_best_halves_win_over_every_other_choice(rng: np.random.Generator) -> None:
    """Every way to give 0, 4 or 8 bits to six coordinates in three bytes: none has a greater sum of gains."""
    gains = coordinate_gains(sample_of(rng, 80, 6))
    total = {
        halves: sum((half > 0) * gains.first[j] + (half > 1) * gains.second[j] for j, half in enumerate(halves))
        for halves in product(range(3), repeat=6)
        if sum(halves) <= 6
    }
    chosen = tuple((code_of(gains, 7).bits // 4).tolist())
    assert total[chosen] == pytest.approx(max(total.values()), rel=ROUNDING)


def test_a_second_half_comes_after_its_first_also_at_equal_gains() -> None:
    ones = np.ones(4)
    code = code_of(Gains(ones, ones, 2 * ones, 3 * ones), 6)
    assert code.bits.tolist() == [4, 4, 4, 4]
    assert code.step.tolist() == [2, 2, 2, 2]
    assert code_of(Gains(ones, ones, 2 * ones, 3 * ones), 7).bits.tolist() == [8, 8, 4, 4]
    assert code_of(Gains(ones, ones, 2 * ones, 3 * ones), 99).step.tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("row_bytes", [5, 6, 9, 16])
def test_records_are_as_long_as_was_asked(rng: np.random.Generator, row_bytes: int) -> None:
    vectors = rng.standard_normal((300, 40)) * np.exp(-np.arange(40) / 9)
    scales = np.linalg.norm(vectors, axis=1)
    code = fit_code(vectors, scales, row_bytes)
    assert code.row_bytes == row_bytes
    assert code.encode(vectors, scales).shape == (300, row_bytes)


def test_a_fit_is_that_of_rows_over_their_scales(rng: np.random.Generator) -> None:
    sample = sample_of(rng, 70, 8)
    scales = rng.uniform(0.5, 3, 70)
    scales[3], sample[3] = 0, 0
    found, expected = fit_code(sample * scales[:, None], scales, 8), code_of(coordinate_gains(sample), 8)
    assert found.bits.tolist() == expected.bits.tolist()
    assert found.step == pytest.approx(expected.step)


def test_coordinates_that_are_always_zero_get_no_bits(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((50, 4)) * [0, 1, 0, 1e-42]
    code = fit_code(vectors, np.ones(50), 20)
    assert code.bits.tolist() == [0, 8, 0, 0]
    assert code.step[[0, 2, 3]].tolist() == [0, 0, 0]
    assert code.row_bytes == 5


def test_more_bytes_keep_scores_better(rng: np.random.Generator) -> None:
    """And the code beats 8 bits for the leading coordinates alone, in as many bytes."""
    spread = (1 + np.arange(400)) ** -0.5
    vectors, queries = rng.standard_normal((500, 400)) * spread, rng.standard_normal((30, 400)) * spread
    scales = np.linalg.norm(vectors, axis=1)

    def error(code: Code) -> float:
        return float(np.square(queries @ (code.decode(code.encode(vectors, scales)) - vectors).T).mean())

    errors = [error(fit_code(vectors, scales, row_bytes)) for row_bytes in (34, 104, 204)]
    assert errors == sorted(errors, reverse=True)
    bits = np.where(np.arange(400) < 100, 8, 0).astype(np.uint8)
    step = coordinate_gains(vectors / scales[:, None]).step8.astype(np.float32)
    leading = Code(bits, np.where(bits > 0, step, np.float32(0)))
    assert leading.row_bytes == 104
    assert errors[1] < error(leading) / 1.5


def test_no_room_for_a_coordinate_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(BuildError, match="4 bytes an example: expected at least 5, a scale of 4 bytes and one for"):
        fit_code(rng.standard_normal((5, 3)), np.ones(5), 4)
