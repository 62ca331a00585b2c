"""What rank1 costs against d, m and n, beside sqrt(d) (m + n), the operations of its two thin products.

    python -m benchmarks.rank1_cost

One linear layer [m, n] of one output position, its factors at hand, 256 examples, one thread: two products of
b sqrt(d) m and b sqrt(d) n multiplications, then b d for the outer products. Medians of rounds in which all sizes
take turns. Drawn on logarithmic axes with the line c sqrt(d) (m + n), c by least squares of logarithms, into
figures/rank1_cost.png. A side that is no longer than its sketch has no product: such a size is drawn, but not fitted.

Printed: the exponent p of time ~ (sqrt(d) (m + n))^p over all sizes, by d and by m; how far each size is off the line;
and time as a sum of four costs, a + e (m + n) + c sqrt(d) (m + n) + o d, that says which one it is that leads away:
calls; reading and packing the factors, whatever d is; the products; the outer products. The fit is by least squares of
relative errors, with no cost below zero.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from indexer.gradients.block import FactorGradient
from indexer.gradients.layout import Block, Layout
from indexer.gradients.uses import LinearUse
from indexer.projection.rank1 import Rank1

BATCH = 256
NUMBERS, SIDES = (16, 64, 256, 1024, 4096), (64, 256, 1024, 4096)
FIGURE = Path(__file__).parent / "figures" / "rank1_cost.png"
COSTS = ("calls", "reading factors", "thin products", "outer products")

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Size:
    """d numbers of a block [side, side]."""

    d: int
    side: int

    @property
    def work(self) -> int:
        """sqrt(d) (m + n)."""
        return isqrt(self.d) * 2 * self.side

    @property
    def thin(self) -> bool:
        """Whether both sides are shortened."""
        return isqrt(self.d) < self.side

    @property
    def costs(self) -> tuple[float, ...]:
        """What each of `COSTS` grows with."""
        return 1.0, 2.0 * self.side, float(self.work), float(self.d)


def sandwich(size: Size, generator: torch.Generator) -> Callable[[], object]:
    """Return a pass that makes the sketches of one batch by `Rank1`."""
    block = Block("weight", ("weight",), (size.side, size.side), "factors", "linear")
    projection = Rank1(Layout((block,), ()), size.d)
    assert projection.width == size.d
    delta, x = (torch.randn(BATCH, size.side, generator=generator) for _ in range(2))
    gradient, matrices = FactorGradient((LinearUse(delta, x, bias=False),)), projection.matrices(0)
    return lambda: projection.piece("weight", gradient, matrices)


def microseconds(sizes: list[Size], rounds: int) -> Vector:
    """Return the time of one example, by size: medians of rounds in which all take turns."""
    generator = torch.Generator().manual_seed(0)
    passes = [sandwich(size, generator) for size in sizes]
    seconds: list[list[float]] = [[] for _ in sizes]
    for _ in range(rounds + 2):
        for taken, run in zip(seconds, passes, strict=True):
            run()  # the others have had the caches; a build sees them warm, because delta and x were made just before
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return np.array([1e6 * statistics.median(taken[2:]) / BATCH for taken in seconds])


def line(work: Vector, times: Vector) -> float:
    """Return c of time = c work, by least squares of logarithms."""
    return float(np.exp(np.mean(np.log(times) - np.log(work))))


def exponent(work: Vector, times: Vector) -> float:
    """Return p of time ~ work^p, by least squares of logarithms."""
    return float(np.polyfit(np.log(work), np.log(times), 1)[0])


def share_of_costs(sizes: list[Size], times: Vector) -> NDArray[np.float64]:
    """Return the part of each cost in the time of each size [size, cost]; the best fit without negative costs."""
    costs = np.array([size.costs for size in sizes])
    best, error = np.zeros(len(COSTS)), np.inf
    for count in range(1, len(COSTS) + 1):
        for chosen in itertools.combinations(range(len(COSTS)), count):
            relative = costs[:, chosen] / times[:, None]
            factors = np.linalg.lstsq(relative, np.ones(len(times)), rcond=None)[0]
            left = float(np.square(relative @ factors - 1).sum())
            if (factors >= 0).all() and left < error:
                best, error = np.zeros(len(COSTS)), left
                best[list(chosen)] = factors
    parts: NDArray[np.float64] = costs * best
    return parts


def draw(sizes: list[Size], times: Vector, c: float) -> None:
    """Draw a marker a size and the line, and write the figure."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for d in NUMBERS:
        at = [i for i, size in enumerate(sizes) if size.d == d]
        axes.loglog([sizes[i].work for i in at], times[at], "o-", markersize=5, linewidth=1, label=f"d = {d:,}")
    whole = [i for i, size in enumerate(sizes) if not size.thin]
    axes.loglog([sizes[i].work for i in whole], times[whole], "kx", label="no side shortened")
    ends = np.array([min(size.work for size in sizes), max(size.work for size in sizes)])
    axes.loglog(ends, c * ends, "k--", linewidth=1, label="c sqrt(d) (m + n)")
    axes.set_xlabel("sqrt(d) (m + n), m = n = 64, 256, 1024, 4096")
    axes.set_ylabel("microseconds an example")
    axes.set_title(f"rank1 of one linear layer, batch {BATCH}, one thread")
    axes.grid(True, which="major", linewidth=0.3)
    axes.legend(fontsize=8)
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    """Print a row a size and the fits, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [Size(d, side) for d in NUMBERS for side in SIDES]
    times = microseconds(sizes, options.rounds)
    fitted = [i for i, size in enumerate(sizes) if size.thin]
    work = np.array([float(size.work) for size in sizes])
    c = line(work[fitted], times[fitted])
    parts = share_of_costs([sizes[i] for i in fitted], times[fitted])
    print("| d | m = n | µs an example | over the line | " + " | ".join(COSTS) + " | sum over time |")
    print("|---" * (5 + len(COSTS)) + "|")
    for i, (size, taken) in enumerate(zip(sizes, times, strict=True)):
        shares = ["-"] * (1 + len(COSTS))
        if i in fitted:
            part = parts[fitted.index(i)]
            shares = [*(f"{share:.0%}" for share in part / part.sum()), f"{part.sum() / taken:.2f}"]
        print(f"| {size.d} | {size.side} | {taken:.3f} | {taken / (c * size.work):.2f} | {' | '.join(shares)} |")
    print(f"\nc = {1e6 * c:.1f} ps; exponent over all {len(fitted)} sizes: {exponent(work[fitted], times[fitted]):.2f}")
    for name, values in (("d", NUMBERS), ("side", SIDES)):
        for value in values:
            at = [i for i in fitted if getattr(sizes[i], name) == value]
            print(f"exponent at {name} = {value}: {exponent(work[at], times[at]):.2f}")
    draw(sizes, times, c)
    print(f"{FIGURE.name}: {FIGURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
