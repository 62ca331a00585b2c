"""Random matrices that are the same on every machine, device and run.

Every number is a function of (seed, checkpoint, parameter, block): the raw bits of a counter-based generator
(Philox, keyed by a hash of the four) go through the inverse normal distribution function, on the CPU. Index and
query sides draw the same matrices because nothing else enters.
"""

import hashlib
from typing import Literal

import numpy as np
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
    key = hashlib.sha256(repr((int(seed), int(place[0]), *place[1:])).encode()).digest()[:16]
    generator = np.random.Philox(key=np.frombuffer(key, dtype="<u8").astype(np.uint64))
    count = shape[0] * shape[1]
    words = generator.random_raw((count + 1) // 2)
    halves = np.stack([words & 0xFFFFFFFF, words >> 32], axis=1).reshape(-1)[:count]  # little half first, on any CPU
    uniform = torch.from_numpy((halves.astype(np.float64) + 0.5) / 2.0**32)
    normal: Tensor = torch.special.ndtri(uniform) * variance**0.5
    return normal.float().reshape(shape)
