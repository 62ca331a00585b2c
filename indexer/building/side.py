"""What a build keeps of training rows beside their vectors, until the table of examples and the card are made.

The side data of a shard are a safetensors file: ``content`` uint8 [r, 16], and where the method has them
``self_influence`` [r, c] and ``scores`` float32 [q, r]. Nothing grows by Python objects a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import safetensors.numpy
from jaxtyping import Float, Float32, UInt8

HASH_BYTES = 16  # of a content hash, which is 32 hexadecimal digits


@dataclass(frozen=True, slots=True, eq=False)
class Hashes:
    """Content hashes as bytes, read as text one by one."""

    digests: UInt8[np.ndarray, "n 16"]

    def __len__(self) -> int:
        """Rows."""
        return len(self.digests)

    def __getitem__(self, row: int) -> str:
        """Return the hash of a row."""
        digest: bytes = self.digests[row].tobytes()
        return digest.hex()

    def __iter__(self) -> Iterator[str]:
        """Yield them in order."""
        return (self[row] for row in range(len(self)))


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The side data of r consecutive rows; self-influence and scores are None where the method has none."""

    content: UInt8[np.ndarray, "r 16"]
    self_influence: Float[np.ndarray, "r c"] | None = None
    scores: Float32[np.ndarray, "q r"] | None = None

    def __len__(self) -> int:
        """Rows."""
        return len(self.content)

    def to_bytes(self) -> bytes:
        """Return the safetensors file."""
        found = {"content": self.content, "self_influence": self.self_influence, "scores": self.scores}
        return safetensors.numpy.save({name: array for name, array in found.items() if array is not None})


def read_side(data: bytes) -> Side:
    """Return the side data that a file of `Side.to_bytes` holds; its hash was checked."""
    found = safetensors.numpy.load(data)
    return Side(found["content"], found.get("self_influence"), found.get("scores"))


class SideWriter:
    """Collects the side data of n rows, shard after shard or batch after batch, in arrays made once."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._done = 0
        self._content = np.empty((rows, HASH_BYTES), np.uint8)
        self._self_influence: np.ndarray | None = None
        self._scores: np.ndarray | None = None

    def add(self, side: Side) -> None:
        """Append the side data of the next rows."""
        here = slice(self._done, self._done + len(side))
        self._content[here] = side.content
        if side.self_influence is not None:
            if self._self_influence is None:
                self._self_influence = np.empty((self._rows, side.self_influence.shape[1]), side.self_influence.dtype)
            self._self_influence[here] = side.self_influence
        if side.scores is not None:
            if self._scores is None:
                self._scores = np.empty((len(side.scores), self._rows), np.float32)
            self._scores[:, here] = side.scores
        self._done = here.stop

    def finish(self) -> Side:
        """Return the side data of all rows."""
        assert self._done == self._rows, f"expected {self._rows} rows, found {self._done}"
        return Side(self._content, self._self_influence, self._scores)


def side_of(
    content: Sequence[str],
    self_influence: Float[np.ndarray, "r c"] | None = None,
    scores: Float[np.ndarray, "r q"] | None = None,
) -> Side:
    """Return side data as a pass has them of a batch: hashes as text, and the scores of each row."""
    digests = np.frombuffer(bytes.fromhex("".join(content)), np.uint8).reshape(-1, HASH_BYTES)
    return Side(
        digests,
        self_influence,
        None if scores is None else np.ascontiguousarray(scores.T, np.float32),
    )
