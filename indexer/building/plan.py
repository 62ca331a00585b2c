"""The plan of a build: fixed at its start, kept in the manifest.

Under one plan, on one kind of machine, vectors are equal bit for bit.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch

from indexer.building.spec import BuildSpec
from indexer.errors import TooLargeError
from indexer.index.manifest import Plan
from indexer.index.store import SHARD_BYTES

LARGEST_BATCH = 128  # measured: of four models only the smallest gains from more, the others leave the cache
PLANNED_ON = 8  # training examples whose bytes are counted
SHARD_BATCHES = 64  # at most, and 256 MiB: a stopped build makes no more again than one shard
SHARE = 4  # one part in so many of the machine's memory may go to the gradients of a batch

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_VERSIONS = ("proponent", "torch", "numpy", "faiss-cpu", "pillow")


def make_plan(spec: BuildSpec, *, bytes_per_example: int, channels_last: bool) -> Plan:
    """Return the plan for a spec and its model on this machine.

    Raises:
        TooLargeError: not even one example fits.
    """
    return Plan(
        batch_size=spec.batch_size or plan_batch_size(bytes_per_example),
        threads=torch.get_num_threads(),
        dtype="float32",
        memory_format="channels_last" if channels_last else "contiguous",
        device=spec.device,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions of all that vectors depend on."""
    return {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()}


def machine(device: str) -> str:
    """Return the kind of processor that vectors are made on: another one rounds in another order.

    >>> machine("cpu").split()[0] == platform.machine()
    True
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def plan_batch_size(bytes_per_example: int) -> int:
    """Return the largest power of two up to 128 whose batch takes at most a quarter of the machine's memory.

    Raises:
        TooLargeError: not even one example fits.
    """
    budget, size = machine_memory() // SHARE, LARGEST_BATCH
    while size > 1 and size * bytes_per_example > budget:
        size //= 2
    if size * bytes_per_example > budget:
        raise TooLargeError(
            f"the gradients of one example take {bytes_per_example / 2**30:.1f} GiB; a batch may take "
            f"{budget / 2**30:.1f} GiB of this machine's memory. Index fewer parameters (`--parameters`), or set "
            "batch_size = 1 yourself"
        )
    return size


@contextmanager
def running(threads: int | None) -> Iterator[None]:
    """Run with so many threads (None: as many as before), in full float32 on GPUs, and put back what was."""
    before, shorter = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(threads or before)
    torch.backends.cudnn.allow_tf32 = False  # 10 bits of mantissa: vectors would be another index's
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.allow_tf32 = shorter


def batches(rows: int, size: int) -> list[range]:
    """Return the batch boundaries of a plan.

    >>> batches(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def shards(rows: int, batch_size: int, row_bytes: int) -> list[range]:
    """Return the rows of each shard: whole batches, so that whoever makes a shard alone makes the same bytes.

    >>> shards(5, 2, row_bytes=2**27)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return batches(rows, batch_size * max(1, min(SHARD_BATCHES, SHARD_BYTES // (batch_size * row_bytes))))


def machine_memory() -> int:
    """Return the bytes that this machine has, or that its container may take."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CGROUP.read_text().strip() if _CGROUP.is_file() else "max"
    return min(physical, int(limit)) if limit.isdigit() else physical
