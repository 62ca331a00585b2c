"""Random matrices that are the same on every machine, device and run.

Every number is a function of (seed, checkpoint, parameter, block): the raw bits of a counter-based generator
(Philox, keyed by a hash of the four) go through the inverse normal distribution function, or are scaled to a whole
number, on the CPU. Index and query sides draw the same matrices because nothing else enters.
"""

import hashlib
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

SCHEME: Literal["philox-icdf-1"] = "philox-icdf-1"  # kept in the manifest: other numbers need another name


def normal_matrix(
    shape: tuple[int, int], variance: float, *, seed: int, place: tuple[int, str, str]
) -> Float[Tensor, "r n"]:
    """Return a float32 matrix of independent N(0, variance) entries.

    place: (checkpoint, parameter, block); another place gives an independent matrix.

    >>> here = normal_matrix((2, 3), 1.0, seed=0, place=(0, "fc.weight", "left"))
    >>> there = normal_matrix((2, 3), 1.0, seed=0, place=(1, "fc.weight", "left"))
    >>> here.shape, bool((here == there).any())
    (torch.Size([2, 3]), False)
    """
    halves = _halves(shape[0] * shape[1], seed, place)
    uniform = torch.from_numpy((halves.astype(np.float64) + 0.5) / 2.0**32)
    normal: Tensor = torch.special.ndtri(uniform) * variance**0.5
    return normal.float().reshape(shape)


def whole_numbers(count: int, below: int, *, seed: int, place: tuple[int, str, str]) -> Float[Tensor, " n"]:
    """Return independent whole numbers, uniform in [0, below), as float32, which holds them exactly below 2^24.

    A number is the high word of 32 random bits times ``below``: the chances of two numbers differ by less than one
    part in 2^32 / below, which no sketch can tell. place: (checkpoint, parameter, block).

    >>> drawn = whole_numbers(1000, 3, seed=0, place=(0, "fc.weight", "entries"))
    >>> drawn.unique()
    tensor([0., 1., 2.])
    """
    assert 1 <= below <= 2**24, below
    return torch.from_numpy((_halves(count, seed, place) * np.uint64(below) >> np.uint64(32)).astype(np.float32))


def _halves(count: int, seed: int, place: tuple[int, str, str]) -> npt.NDArray[np.uint64]:
    """Return so many times 32 random bits: the halves of Philox's words, the little one first on any CPU."""
    key = hashlib.sha256(repr((int(seed), int(place[0]), *place[1:])).encode()).digest()[:16]
    generator = np.random.Philox(key=np.frombuffer(key, dtype="<u8").astype(np.uint64))
    words = generator.random_raw((count + 1) // 2)
    return np.stack([words & 0xFFFFFFFF, words >> 32], axis=1).reshape(-1)[:count]


def random_order(count: int, *, seed: int, place: tuple[int, str, str]) -> list[int]:
    """Return 0 to count - 1 in a random order; place: (checkpoint, parameter, block).

    >>> sorted(random_order(5, seed=0, place=(0, "rows", "sample")))
    [0, 1, 2, 3, 4]
    """
    order: list[int] = np.argsort(_halves(count, seed, place), kind="stable").tolist()
    return order
