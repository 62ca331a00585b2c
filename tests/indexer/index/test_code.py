"""The code byte by byte, against a slow twin in float64, and as a property of any rows."""

import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.errors import CorruptIndexError
from indexer.index.code import Code, read_code, scales_of

FLOAT32 = 4e-7  # relative: three products, each rounded to 2^-24
EDGE = 1e-6  # of a step: where a number lies on the border of two codes, float32 scales may round it over


def code_with(bits: list[int], step: list[float]) -> Code:
    return Code(np.array(bits, np.uint8), np.array(step, np.float32))


def slow_encode(code: Code, vector: np.ndarray, scale: float) -> bytes:
    """One number at a time, in float64."""
    levels = {}
    for j, bits in enumerate(code.bits.tolist()):
        if bits:
            units = 0.0 if scale == 0 else float(vector[j]) / (scale * float(code.step[j]))
            levels[j] = min(max(int(np.floor(units)) + 2 ** (bits - 1), 0), 2**bits - 1)
    wide = [level for j, level in levels.items() if code.bits[j] == 8]
    narrow = [level for j, level in levels.items() if code.bits[j] == 4]
    half = (len(narrow) + 1) // 2
    pairs = [narrow[j] + 16 * (narrow[half + j] if half + j < len(narrow) else 0) for j in range(half)]
    return struct.pack("<f", scale) + bytes(wide) + bytes(pairs)


def slow_decode(code: Code, record: bytes) -> list[float]:
    """One number at a time, in float64."""
    (scale,) = struct.unpack("<f", record[:4])
    places = [j for j, bits in enumerate(code.bits.tolist()) if bits == 8]
    narrow = [j for j, bits in enumerate(code.bits.tolist()) if bits == 4]
    pairs = record[4 + len(places) :]
    vector = [0.0] * code.width
    for place, level in zip(places, record[4:], strict=False):
        vector[place] = scale * (level - 127.5) * float(code.step[place])
    for i, place in enumerate(narrow):
        level = pairs[i] % 16 if i < len(pairs) else pairs[i - len(pairs)] // 16
        vector[place] = scale * (level - 7.5) * float(code.step[place])
    return vector


THREE_BY_FOUR = np.array([[1, -2, 0.4, 9], [0, 0, 0, 0], [-99, 99, -0.1, 3]], dtype=np.float32)


def test_three_rows_of_four_are_these_bytes() -> None:
    """One coordinate of 8 bits, two of 4 in a byte, one that is not stored; the last row is clipped at both ends."""
    code = code_with([4, 8, 4, 0], [0.25, 0.125, 0.5, 0])
    records = code.encode(THREE_BY_FOUR, np.array([2, 0, 1], np.float32))
    # 1 / (2 * 0.25) = 2 -> 8 + 2; -2 / (2 * 0.125) = -8 -> 128 - 8; 0.4 / (2 * 0.5) = 0.4 -> 8
    assert records.tolist() == [[0, 0, 0, 0x40, 120, 0x8A], [0, 0, 0, 0, 128, 0x88], [0, 0, 0x80, 0x3F, 255, 0x70]]
    assert code.row_bytes == 6
    # 2 * 2.5 * 0.25, 2 * -7.5 * 0.125, 2 * 0.5 * 0.5
    assert code.decode(records).tolist() == [[1.25, -1.875, 0.5, 0], [0, 0, 0, 0], [-1.875, 15.9375, -0.25, 0]]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Code, np.ndarray, np.ndarray]:
    """A code of any mixture of bits, vectors that it clips here and there, and scales, some of them 0."""
    bits = draw(st.lists(st.sampled_from([0, 4, 4, 8]), min_size=1, max_size=19))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    step = np.where(bits, np.exp(generator.normal(size=len(bits)) - 2), 0).astype(np.float32)
    scales = generator.uniform(0.1, 9, draw(st.integers(1, 9)))
    scales *= generator.integers(0, 4, len(scales)) > 0
    vectors = generator.normal(size=(len(scales), len(bits))) * scales[:, None]
    return code_with(bits, step.tolist()), vectors.astype(np.float32), scales.astype(np.float32)


@given(problems())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_records_are_those_of_the_slow_twin(problem: tuple[Code, np.ndarray, np.ndarray]) -> None:
    code, vectors, scales = problem
    records = code.encode(vectors, scales)
    assert [record.tobytes() for record in records] == [
        slow_encode(code, vector, scale) for vector, scale in zip(vectors, scales.tolist(), strict=True)
    ]
    assert scales_of(records).tolist() == scales.tolist()


@given(problems())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_bit_pattern_decodes_as_by_the_slow_twin(problem: tuple[Code, np.ndarray, np.ndarray]) -> None:
    code, vectors, scales = problem
    records = code.encode(vectors, scales)
    records[:, 4:] = np.random.default_rng(0).integers(0, 256, records[:, 4:].shape, dtype=np.uint8)
    expected = [slow_decode(code, record.tobytes()) for record in records]
    assert code.decode(records) == pytest.approx(np.array(expected), rel=FLOAT32)


@given(problems())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_is_not_clipped_errs_by_half_a_step(problem: tuple[Code, np.ndarray, np.ndarray]) -> None:
    code, vectors, scales = problem
    half = np.where(code.bits == 0, 0, 2.0 ** (code.bits.astype(int) - 1))
    cell = scales[:, None].astype(np.float64) * code.step
    clipped = vectors.clip(-half * cell, half * cell)
    error = np.abs(code.decode(code.encode(vectors, scales)) - clipped)
    assert (error <= cell * (0.5 + EDGE) + np.abs(clipped) * FLOAT32).all()


@given(problems())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_folded_products_are_those_of_decoded_rows(problem: tuple[Code, np.ndarray, np.ndarray]) -> None:
    code, vectors, scales = problem
    records = code.encode(vectors, scales)
    queries = np.random.default_rng(1).normal(size=(3, code.width))
    weights, offsets = code.fold(queries)
    found = (weights @ code.levels(records).T + offsets) * scales_of(records)
    decoded = code.decode(records).astype(np.float64)
    most = np.abs(queries) @ np.abs(decoded).T
    assert (np.abs(found - queries @ decoded.T) <= 19 * 2.0**-23 * most).all()  # a rounding for each of 19 terms


@given(problems())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_levels_go_where_they_are_told(problem: tuple[Code, np.ndarray, np.ndarray]) -> None:
    code, vectors, scales = problem
    records = code.encode(vectors, scales)
    out = np.full((len(records) + 2, len(code.order)), np.nan, np.float32)
    assert np.shares_memory(code.levels(records, out), out) == (out.size > 0)
    assert np.array_equal(out[: len(records)], code.levels(records))
    assert np.isnan(out[len(records) :]).all()


@given(problems())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_vector_is_not_outside_of_its_own_code(problem: tuple[Code, np.ndarray, np.ndarray]) -> None:
    code, vectors, scales = problem
    wild = 50 * vectors  # beyond the outermost levels everything has the same code
    for rows in (vectors, wild):
        rows = np.where(scales[:, None] > 0, rows, 0)
        outside = code.outside(rows, code.encode(rows, scales))
        assert (outside <= EDGE * scales * np.linalg.norm(code.step)).all()


def test_a_vector_is_outside_by_how_far_it_is_from_its_codes() -> None:
    code = code_with([4, 8, 0], [0.5, 1, 0])
    records = code.encode(np.array([[0.25, 3, 7]]), np.array([2.0]))  # codes allow 0 to 1 and 2 to 4
    others = np.array([[0.9, 2.1, -5], [1.0 + 3, 3, 0], [0.5, 2 - 4, 0], [-3, 4 + 4, 0]])
    assert code.outside(others, records.repeat(4, 0)).tolist() == [0, 3, 4, 5]


def test_a_code_without_coordinates_has_rows_of_zeros() -> None:
    code = code_with([0, 0, 0], [0, 0, 0])
    records = code.encode(THREE_BY_FOUR[:, :3], np.ones(3))
    assert code.row_bytes == 4
    assert records.tobytes() == struct.pack("<3f", 1, 1, 1)
    assert not code.decode(records).any()
    weights, offsets = code.fold(np.ones((2, 3)))
    assert not (weights @ code.levels(records).T + offsets).any()


def test_a_code_reads_back_as_it_was() -> None:
    code = code_with([4, 8, 0], [0.5, 1, 0])
    again = read_code(code.tensors(), 3)
    assert (again.bits.tolist(), again.step.tolist()) == (code.bits.tolist(), code.step.tolist())
    assert again.tensors() == code.tensors()


BITS, STEP = np.array([4, 8, 0], np.uint8), np.array([0.5, 1, 0], np.float32)
HOSTILE: dict[str, tuple[bytes | dict[str, np.ndarray], str]] = {
    "not safetensors": (b"none", "is not safetensors"),
    "empty": (b"", "is not safetensors"),
    "one tensor": ({"bits": BITS}, "expected {'bits': .*}, found {'bits': .*}; rebuild"),
    "another tensor": ({"bits": BITS, "step": STEP, "more": STEP}, "found .*'more'"),
    "wider": ({"bits": np.tile(BITS, 2), "step": np.tile(STEP, 2)}, r"found .*\(6,\)"),
    "matrix": ({"bits": BITS[None], "step": STEP}, r"found .*\(1, 3\)"),
    "dtype of bits": ({"bits": BITS.astype(np.int64), "step": STEP}, "found .*int64"),
    "dtype of step": ({"bits": BITS, "step": STEP.astype(np.float64)}, "found .*float64"),
    "other bits": ({"bits": BITS + np.uint8(1), "step": STEP}, r"0, 4 or 8 bits a coordinate, found \[1, 5, 9\]"),
    "step of zero": ({"bits": BITS, "step": 0 * STEP}, "a positive step for every stored coordinate; rebuild"),
    "negative step": ({"bits": BITS, "step": -STEP}, "a positive step for every stored coordinate"),
    "step that is no number": ({"bits": BITS, "step": STEP * np.nan}, "a positive step for every stored coordinate"),
    "infinite step": ({"bits": BITS, "step": STEP + np.inf}, "a positive step for every stored coordinate"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_another_code_is_refused_by_what_is_wrong(case: str) -> None:
    content, expected = HOSTILE[case]
    data = content if isinstance(content, bytes) else safetensors.numpy.save(content)
    with pytest.raises(CorruptIndexError, match=f"the code of the vectors.*{expected}"):
        read_code(data, 3)
