"""What per-example gradients cost over plain training steps of the same model, on the same batch, in one run.

    PROPONENT_DATA=data python -m benchmarks.gradients --out gradients.json

The ways are those of `benchmarks.passes`: variants of a plain step, and ours. All take turns within a round. The
fastest step is the one with the lowest median; a ratio is the median over rounds of time over that step's time in the
same round, with the quartiles. Before anything is timed, what the timed passes return is compared with a loop of
float64 ``backward()``. Exit status 1 where it differs by 1e-4 or more of its norm.

Peak memory is of a fresh process each: the highest resident memory over that just before the first pass of the batch.
It is VmHWM of Linux, reset first: ru_maxrss of a child begins at the peak of the process that started it. Before that
the way has run on 8 examples: pages of the libraries' code, much the same for all, would pull ratios towards 1. What
is resident differs by a third from one process to the next: the median of five, in turn, is taken, and the range shown.
"""

import argparse
import copy
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.models import WORKLOADS, Workload, workload
from benchmarks.passes import DENSE, OURS, VERIFIED, Pass, Subject, our_passes, plain_steps, prepare, verify
from indexer.gradients.layout import Layout
from indexer.gradients.probe import PROBE_ROWS, probe
from indexer.recipes.mnist import loss

LARGEST_ERROR = 1e-4  # relative, of any example: float32 rounds to 1e-6, a wrong matrix or block is off by 1e-1
DENSE_ROUNDS = 5  # it is slow, and far off
MEMORY_WAYS, MEMORY_GOAL = ("rank1", "rank1 + norms"), 1.5
MEMORY_PASSES, MEMORY_PROCESSES = 3, 5


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time or memory over the fastest step's: the median over rounds, and the quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Cell:
    """One model at one batch size and number of threads."""

    model: str
    goal: float  # of rank1
    batch: int
    threads: int
    step: str  # the fastest variant
    microseconds: dict[str, float]  # an example and checkpoint, by way
    ratios: dict[str, Ratio]
    errors: dict[str, float]


class NotVerifiedError(Exception):
    """What is to be timed is wrong."""


def measure(subject: Subject, rounds: int, threads: int) -> Cell:
    """Verify, then time.

    Raises:
        NotVerifiedError: a pass does not return what the loop does.
    """
    torch.set_num_threads(threads)
    steps, ours = plain_steps(subject.work, subject.batch), our_passes(subject)
    errors = verify(subject, ours)
    if not all(error < LARGEST_ERROR for error in errors.values()):  # NaN is below nothing
        raise NotVerifiedError(f"{_said(errors)}; expected each below {LARGEST_ERROR:.0e}")
    slow = {DENSE: ours.pop(DENSE)} if DENSE in ours else {}
    seconds = interleaved({**steps, **ours}, rounds)
    fastest = min(steps, key=lambda name: statistics.median(seconds[name]))
    ratios = {name: paired(taken, seconds[fastest]) for name, taken in seconds.items()}
    if slow:  # apart, so that what it leaves in the caches is no other way's burden
        few = interleaved({fastest: steps[fastest], **slow}, min(rounds, DENSE_ROUNDS))
        ratios[DENSE], seconds[DENSE] = paired(few[DENSE], few[fastest]), few[DENSE]
    b = len(subject.batch[0])
    times = {name: 1e6 * statistics.median(taken) / b for name, taken in seconds.items()}
    return Cell(subject.work.name, subject.work.goal, b, threads, fastest, times, ratios, errors)


def interleaved(passes: Mapping[str, Pass], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every pass in every round, after two rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds + 2):
        for name, run in passes.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: taken[2:] for name, taken in seconds.items()}


def paired(taken: Sequence[float], base: Sequence[float]) -> Ratio:
    """Return the quartiles of the ratios within rounds."""
    low, median, high = statistics.quantiles([a / b for a, b in zip(taken, base, strict=True)], method="inclusive")
    return Ratio(median, low, high)


def peak_memory(way: str, subject: Subject, warm: Subject) -> float:
    """Return the MiB that a way takes beyond what is there before it, over a few passes."""
    {**plain_steps(warm.work, warm.batch), **our_passes(warm)}[way]()
    run = {**plain_steps(subject.work, subject.batch), **our_passes(subject)}[way]
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the probe left with the allocator would hide what the pass takes
    Path("/proc/self/clear_refs").write_text("5")
    before = _kibibytes("VmRSS")
    for _ in range(MEMORY_PASSES):
        run()
    return (_kibibytes("VmHWM") - before) / 1024


def environment() -> dict[str, Any]:
    """Return what the figures depend on besides the code."""
    names = [name for name in os.environ if name.startswith(("MALLOC_", "OMP_", "MKL_", "KMP_"))]
    names += [name for name in ("LD_PRELOAD", "GLIBC_TUNABLES") if name in os.environ]
    cpus = Path("/proc/cpuinfo")
    models = [line for line in cpus.read_text().splitlines() if line.startswith("model name")] if cpus.exists() else []
    return {
        "cpu": models[0].partition(":")[2].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "variables": {name: os.environ[name] for name in sorted(names)},
    }


def table(cells: Sequence[Cell]) -> str:
    """Return the Markdown table of one number of threads."""
    shown = [*OURS, DENSE]
    lines = ["| model | batch | fastest step | µs an example | " + " | ".join([*shown, "goal of rank1"]) + " |"]
    lines.append("|---" * (5 + len(shown)) + "|")
    for cell in cells:
        entries = [cell.model, str(cell.batch), cell.step.removeprefix("step "), f"{cell.microseconds[cell.step]:,.1f}"]
        entries += [str(cell.ratios.get(name, "-")) for name in shown]
        lines.append(f"| {' | '.join(entries)} | {cell.goal:.2f} |")
    return "\n".join(lines)


def memory_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown table of peak memory: MiB, the range over processes, and the ratio of medians."""
    lines = ["| model | batch | fastest step | " + " | ".join(MEMORY_WAYS) + " | goal |", "|---" * 6 + "|"]
    for row in rows:
        entries, step = [], 0.0
        for taken in row["mebibytes"].values():
            median = statistics.median(taken)
            step = step or median
            entries.append(f"{median:,.1f} MiB ({min(taken):,.1f}-{max(taken):,.1f}), {median / step:.2f}")
        lines.append(f"| {row['model']} | {row['batch']} | {' | '.join(entries)} | {MEMORY_GOAL:.2f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a cell, then the tables; write everything as JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--models", type=_names, default=list(WORKLOADS), help=",".join(WORKLOADS))
    parser.add_argument("--threads", type=_numbers, default=[1, 2])
    parser.add_argument("--batches", type=_numbers, default=[64, 256])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--memory", metavar="WAY", help="only print the MiB of one way, for one model and batch")
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error("--rounds: quartiles need at least 2")
    if options.memory:
        torch.set_num_threads(options.threads[0])
        work, layout = _probed(options.models[0])
        subject, warm = (prepare(work, layout, b) for b in (options.batches[0], VERIFIED))
        print(peak_memory(options.memory, subject, warm))
        return 0
    print(json.dumps(environment()), flush=True)
    cells, memory, failed = [], [], False
    for name in options.models:
        try:
            work, layout = _probed(name)
        except FileNotFoundError as exc:
            print(f"SKIPPED {name}: {exc}", flush=True)
            continue
        for b in options.batches:
            subject = prepare(work, layout, b)
            for threads in options.threads:
                try:
                    cells.append(measure(subject, options.rounds, threads))
                except NotVerifiedError as exc:
                    failed = True
                    print(f"WRONG {name}, batch {b}, threads {threads}: relative error {exc}", flush=True)
                    continue
                print(f"verified {name}, batch {b}, threads {threads}: {_said(cells[-1].errors)}", flush=True)
        timed = [cell for cell in cells if cell.model == name and cell.batch == max(options.batches)]
        if timed:
            memory.append(_memory_row(timed[0]))
    for threads in options.threads:
        print(f"\nthreads: {threads}\n\n{table([cell for cell in cells if cell.threads == threads])}")
    print(f"\npeak memory, threads: {options.threads[0]}\n\n{memory_table(memory)}")
    if options.out:
        found = {"environment": environment(), "rounds": options.rounds, "memory": memory}
        options.out.write_text(json.dumps({**found, "cells": [asdict(cell) for cell in cells]}, indent=1) + "\n")
    return int(failed)


def _memory_row(cell: Cell) -> dict[str, Any]:
    """Measure the fastest step and ours, each in fresh processes."""
    found: dict[str, list[float]] = {way: [] for way in (cell.step, *MEMORY_WAYS)}
    for _ in range(MEMORY_PROCESSES):
        for way, taken in found.items():
            command = [sys.executable, "-m", "benchmarks.gradients", "--memory", way, "--models", cell.model]
            command += ["--batches", str(cell.batch), "--threads", str(cell.threads)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            taken.append(float(said.splitlines()[-1]))
    return {"model": cell.model, "batch": cell.batch, "threads": cell.threads, "mebibytes": found}


def _probed(name: str) -> tuple[Workload, Layout]:
    work = workload(name)
    return work, probe(copy.deepcopy(work.module), loss, work.first(PROBE_ROWS))


def _said(errors: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {error:.0e}" for name, error in errors.items())


def _kibibytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(WORKLOADS):
        raise argparse.ArgumentTypeError(f"{sorted(unknown)[0]!r} is none of {', '.join(WORKLOADS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
