"""What building with pca costs over plain training steps on the same examples, at the same checkpoints, in one run.

    PROPONENT_BENCH=bench PROPONENT_DATA=data python -m benchmarks.build_cost --models cnn,mlp --threads 1

The models are those of the neutral workload at its five checkpoints; the examples its own 4,500, and the 60,000 of
MNIST. A plain step is that of `benchmarks.passes`: zero_grad, forward, mean loss and backward, in its fastest variant.

pass       vectors, codes and exact self-influence of a batch at all checkpoints, over as many plain steps; all take
           turns, and a ratio is the median (quartiles) over rounds
card       the same with the exact products of 50 questions
fit        both passes over the sample of 2,000 examples at all checkpoints, and all that is computed of them; over the
           plain steps of all examples
build      fit + pass, and with the card: what the goal of 1.4 is about
whole      the time of `indexer.build` itself from first to last stage, reading, hashing and writing in it, over plain
           steps on all examples
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from benchmarks.gradients import interleaved, paired
from benchmarks.models import Workload
from benchmarks.neutral_task import neutral_task, workload
from benchmarks.noise_runs import read_mnist
from benchmarks.passes import plain_steps
from indexer import BuildSpec, Task, build
from indexer.building.card import card_queries
from indexer.building.fit import fitted_method
from indexer.building.plan import make_plan
from indexer.building.progress import silent
from indexer.building.source import Source, open_source, options_of
from indexer.building.vectors import Pass, row_scales
from indexer.checkpoints.folder import open_run
from indexer.task import read_rows

BATCH = 128
GOAL = 1.4
MEAN, STD = 0.1307, 0.3081  # of the workload's pixels


def with_all_of_mnist(task: Task, data: Path) -> Task:
    """Return the task with the 60,000 training digits, normalised as the workload's are."""
    images = read_mnist(data)
    pixels = (torch.tensor(images.x_train).float().div(255) - MEAN) / STD
    return replace(task, train=TensorDataset(pixels[:, None], torch.tensor(images.y_train).long()))


def pass_of(ready: Pass, batch: tuple[Tensor, Tensor], asked: object = None) -> None:
    """Make what is stored of a batch."""
    found = ready.method.train_rows(batch, asked)  # type: ignore[arg-type]
    vectors = found.vectors.numpy()
    assert ready.code is not None
    ready.code.encode(vectors, row_scales(vectors, found.self_influence))


def measure(name: str, data: Path, rounds: int) -> list[str]:
    """Return the rows of the table of one model, smaller set first."""
    small, spec = neutral_task(name), BuildSpec(workload(name))
    source = open_source(small, open_run(workload(name)), options_of(spec))
    channels_last = source.model.placement.channels_last
    plan = make_plan(replace(spec, batch_size=BATCH), bytes_per_example=1, channels_last=channels_last)
    batch = read_rows(small.train, range(BATCH))
    ready, _ = fitted_method(small, spec, source, plan, None, silent)
    queries = card_queries(small, spec.card_queries)
    assert queries is not None
    asked = ready.method.asked(queries.batch)
    steps = plain_steps(Workload(name, small.model().eval(), batch, channels_last, GOAL), batch)
    ours = {"pass": lambda: pass_of(ready, batch), "card": lambda: pass_of(ready, batch, asked)}
    seconds = interleaved({**steps, **ours}, rounds)
    fastest = min(steps, key=lambda way: statistics.median(seconds[way]))
    c = len(source.model)
    plain = [c * taken for taken in seconds[fastest]]
    ratios = {way: paired(seconds[way], plain) for way in ours}
    step = statistics.median(plain) / BATCH  # an example, at all checkpoints
    lines = []
    for task in (small, with_all_of_mnist(small, data)):
        n = len(task.train)
        fit = statistics.median(_fit_seconds(task, spec, source) for _ in range(3)) / (n * step)
        whole = _build_seconds(task, spec) / (n * step)
        shown = [name, f"{n:,}", fastest.removeprefix("step "), f"{1e6 * step / c:.1f}", str(ratios["pass"])]
        shown += [str(ratios["card"]), f"{fit:.2f}", f"{fit + ratios['pass'].median:.2f}"]
        shown += [f"{fit + ratios['card'].median:.2f}", f"{whole:.2f}"]
        lines.append(f"| {' | '.join(shown)} |")
        print(lines[-1], flush=True)
    return lines


def _fit_seconds(task: Task, spec: BuildSpec, source: Source) -> float:
    plan = make_plan(
        replace(spec, batch_size=BATCH), bytes_per_example=1, channels_last=source.model.placement.channels_last
    )
    start = time.perf_counter()
    fitted_method(task, spec, source, plan, None, silent)
    return time.perf_counter() - start


def _build_seconds(task: Task, spec: BuildSpec) -> float:
    """Time from the first examples of the sample to the last written one."""
    moments: list[float] = []

    def note(stage: str, done: int, total: int) -> None:
        moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        build(task, spec, Path(scratch) / "index", note)
    return moments[-1] - moments[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--models", default="cnn,mlp", help="of cnn and mlp, with commas between")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the folder that has mnist")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    columns = ["model", "examples", "fastest step", "µs a step", "pass", "card", "fit", "build", "with card", "whole"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    for name in options.models.split(","):
        measure(name, options.data, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
