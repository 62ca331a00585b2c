"""The code of coded vectors: 8, 4 or no bits a coordinate, each with its step, and one scale a row.

    value_j = scale * (code_j - 2^(bits_j - 1) + 1/2) * step_j

A midrise quantiser, clipped: no code stands for zero, and every bit pattern is a code. A record is one row, of fixed
length, little-endian:

    float32 scale | a byte for each coordinate of 8 bits | a byte for each two coordinates of 4 bits

Coordinates keep the order of the vector. Those of 4 bits are planar: byte j of h = ceil(n4 / 2) holds coordinate j in
its low half and coordinate h + j in its high half, so that a mask and a shift unpack whole runs. Without a partner the
high half is 0. The *coded order* is that of the record: 8 bits first, then 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float, Float32, UInt8

from indexer.errors import CorruptIndexError

SCALE_BYTES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """How vectors of width m become records: bits [m], each 0, 4 or 8, and step [m], positive where there are bits."""

    bits: UInt8[np.ndarray, " m"]
    step: Float32[np.ndarray, " m"]
    wide: np.ndarray = field(init=False, repr=False)
    order: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Work out the places of coordinates of 8 bits, and of all in coded order."""
        object.__setattr__(self, "wide", np.flatnonzero(self.bits == 8))
        object.__setattr__(self, "order", np.concatenate([self.wide, np.flatnonzero(self.bits == 4)]))

    @property
    def width(self) -> int:
        """Numbers of a vector, stored or not."""
        return len(self.bits)

    @property
    def row_bytes(self) -> int:
        """Bytes of a record."""
        return SCALE_BYTES + len(self.wide) + self._halved

    @property
    def _halved(self) -> int:
        return (len(self.order) - len(self.wide) + 1) // 2

    def encode(self, vectors: Float[np.ndarray, "b m"], scales: Float[np.ndarray, " b"]) -> UInt8[np.ndarray, "b r"]:
        """Return the record of each vector, coded as a multiple of its scale; with a scale of 0 it stands for zero."""
        scales = scales.astype("<f4")
        wide, halved = len(self.wide), self._halved
        units = vectors[:, self.order] / (_divisors(scales)[:, None] * self.step[self.order])
        half = np.where(np.arange(len(self.order)) < wide, 128, 8)
        codes = (np.clip(np.floor(units), -half, half - 1) + half).astype(np.uint8)
        records = np.zeros((len(vectors), self.row_bytes), np.uint8)
        records[:, :SCALE_BYTES] = scales[:, None].view(np.uint8)
        records[:, SCALE_BYTES : SCALE_BYTES + wide] = codes[:, :wide]
        low, high = codes[:, wide : wide + halved], codes[:, wide + halved :]
        records[:, SCALE_BYTES + wide :] = low
        records[:, SCALE_BYTES + wide : SCALE_BYTES + wide + high.shape[1]] |= high << 4
        return records

    def decode(self, records: UInt8[np.ndarray, "b r"]) -> Float32[np.ndarray, "b m"]:
        """Return the vectors that records stand for."""
        vectors = np.zeros((len(records), self.width), np.float32)
        vectors[:, self.order] = self.values(records)
        return vectors

    def values(self, records: UInt8[np.ndarray, "b r"]) -> Float32[np.ndarray, "b s"]:
        """Return the stored coordinates alone, in coded order."""
        values = self.levels(records)
        values += np.float32(0.5)
        values *= scales_of(records)[:, None]
        values *= self.step[self.order]
        return values

    def levels(
        self, records: UInt8[np.ndarray, "b r"], out: Float32[np.ndarray, "c s"] | None = None
    ) -> Float32[np.ndarray, "b s"]:
        """Return code_j - 2^(bits_j - 1) in coded order, into the first rows of `out` where it is given.

        Whole numbers, half a step below what they stand for: bytes are centred as bytes, which costs a sixteenth of
        what it costs after their conversion.
        """
        wide, halved = len(self.wide), self._halved
        if out is None:
            out = np.empty((len(records), len(self.order)), np.float32)
        out = out[: len(records)]
        bytes_, pairs = records[:, SCALE_BYTES : SCALE_BYTES + wide], records[:, SCALE_BYTES + wide :]
        out[:, :wide] = (bytes_ ^ np.uint8(128)).view(np.int8)  # flipping the top bit subtracts 128
        half = pairs & np.uint8(15)
        half -= np.uint8(8)  # wraps around below zero, as int8 reads it
        out[:, wide : wide + halved] = half.view(np.int8)
        np.right_shift(pairs, np.uint8(4), out=half)
        half -= np.uint8(8)
        out[:, wide + halved :] = half.view(np.int8)[:, : out.shape[1] - wide - halved]
        return out

    def fold(self, queries: Float[np.ndarray, "q m"]) -> tuple[Float32[np.ndarray, "q s"], Float32[np.ndarray, "q 1"]]:
        """Return weights w and offsets o such that scale * (levels . w + o) = decoded row . query.

        The offset, half the sum of w, carries the half steps. As no value is nearer to zero than half a step, it errs
        by no more than the products themselves.
        """
        weights = queries[:, self.order].astype(np.float64) * self.step[self.order]
        return weights.astype(np.float32), 0.5 * weights.sum(axis=1, keepdims=True).astype(np.float32)

    def outside(self, vectors: Float[np.ndarray, "b m"], records: UInt8[np.ndarray, "b r"]) -> Float[np.ndarray, " b"]:
        """Return how far vectors are from any that would have these codes, as a norm over stored coordinates.

        A vector that is made again is not the same to the last bit, and may fall to the other side of a step: it is
        compared with what its codes allow, half a step around their values and all beyond the outermost.
        """
        scales = scales_of(records).astype(np.float64)[:, None]
        levels = self.levels(records).astype(np.float64)
        half = np.where(np.arange(len(self.order)) < len(self.wide), 128, 8)
        cell = scales * self.step[self.order]
        lowest = np.where(levels == -half, -np.inf, levels * cell)
        highest = np.where(levels == half - 1, np.inf, (levels + 1) * cell)
        coordinates = vectors[:, self.order]
        found: np.ndarray = np.linalg.norm(coordinates - np.clip(coordinates, lowest, highest), axis=1)
        return found

    def tensors(self) -> bytes:
        """Return the code as a safetensors file: ``bits`` and ``step``."""
        return safetensors.numpy.save({"bits": self.bits, "step": self.step})


def scales_of(records: UInt8[np.ndarray, "b r"]) -> Float32[np.ndarray, " b"]:
    """Return the scales of records: a strided view of their first bytes, not a copy."""
    return records[:, :SCALE_BYTES].view("<f4")[:, 0]


def read_code(data: bytes, width: int) -> Code:
    """Read a code for vectors of a width from the bytes of a safetensors file.

    Raises:
        CorruptIndexError: it is not the code of such vectors.
    """
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError) as exc:  # KeyError: a dtype that NumPy lacks
        raise CorruptIndexError("the code of the vectors is not safetensors; rebuild the index") from exc
    wrong = _wrong(tensors, width)
    if wrong is not None:
        raise CorruptIndexError(f"the code of the vectors: {wrong}; rebuild the index")
    return Code(tensors["bits"], tensors["step"])


def _wrong(tensors: Mapping[str, np.ndarray], width: int) -> str | None:
    """Say what is not as it must be, or nothing."""
    found = {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()}
    expected = {"bits": ("uint8", (width,)), "step": ("float32", (width,))}
    if found != expected:
        return f"expected {expected}, found {found}"
    bits, step = tensors["bits"], tensors["step"]
    if not np.isin(bits, (0, 4, 8)).all():
        return f"expected 0, 4 or 8 bits a coordinate, found {sorted(set(bits.tolist()))}"
    if not (np.isfinite(step) & ((step > 0) | (bits == 0))).all():
        return "expected a positive step for every stored coordinate"
    return None


def _divisors(scales: np.ndarray) -> np.ndarray:
    """Return scales to divide by: infinite where they are 0, so that the quotient is 0."""
    return np.where(scales > 0, scales, np.inf).astype(np.float64)
