"""The neutral workload (PROPONENT_BENCH): scores and self-influence that other code made, in float64."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
needed = pytest.mark.skipif(
    "PROPONENT_BENCH" not in os.environ,
    reason="PROPONENT_BENCH names no neutral workload: see benchmarks/neutral_task.py",
)


@needed
@pytest.mark.slow
@pytest.mark.parametrize("model", ["cnn", "mlp"])
@pytest.mark.parametrize("part", ["identity", "streamed"])
def test_scores_are_those_of_other_code(model: str, part: str) -> None:
    """The benchmark exits with 1 where a bound does not hold: Pearson, top ten, 1e-4 relative, 4 GiB."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.exactness", model, "--only", part],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
