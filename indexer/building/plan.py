"""The plan of a build: fixed at its start, kept in the manifest.

Under one plan, on one kind of machine, vectors are equal bit for bit.
"""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch

from indexer.building.spec import BuildSpec
from indexer.errors import TooLargeError
from indexer.index.manifest import Plan

_VERSIONS = ("proponent", "torch", "numpy", "faiss-cpu", "pillow")


def make_plan(spec: BuildSpec) -> Plan:
    """Return the plan for a spec on this machine."""
    return Plan(
        batch_size=spec.batch_size,
        threads=spec.threads or torch.get_num_threads(),
        dtype="float32",
        versions={name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
    )


@contextmanager
def running(plan: Plan) -> Iterator[None]:
    """Run with the plan's threads, and give the process its own number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def batches(rows: int, size: int) -> list[range]:
    """Return the batch boundaries of a plan.

    >>> batches(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def refuse_too_large(rows: int, width: int, out: Path) -> None:
    """State the bytes of the vectors before any work, and refuse what the disk or the memory cannot hold.

    Raises:
        TooLargeError: with both numbers and the choices.
    """
    need = 4 * rows * width
    existing = next(folder for folder in (out, *out.resolve().parents) if folder.is_dir())
    disk = shutil.disk_usage(existing).free
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name, limit in (("free disk", disk), ("memory", memory)):
        if need > 0.9 * limit:
            raise TooLargeError(
                f"{rows:,} vectors of {width:,} numbers are {need / 2**30:.1f} GiB; "
                f"the {name} is {limit / 2**30:.1f} GiB. Use projection 'rank1' or fewer numbers a checkpoint"
            )
