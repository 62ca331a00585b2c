"""What the vector of one question costs over plain gradients of the same example at the same checkpoints, in one run.

    PROPONENT_BENCH=bench python -m benchmarks.query --models cnn,mlp --projection rank1:256 rank1:1024 --threads 1,2
    PROPONENT_BENCH=bench python -m benchmarks.query --index indexes/cnn --task benchmarks/neutral_task.py:cnn

Ours is `Method.query_vectors` of one example at all checkpoints. The base is ``torch.autograd.grad`` of its loss for
all parameters, one checkpoint after the other, of modules that hold the very tensors of the index's model: what is in
the caches is in them for both. All take turns within a round; times are p50 of rounds, ratios the median (quartiles)
within rounds. Before anything is timed the vector is compared with `Method.train_rows` of the same example, the other
path. Exit status 1 where it differs.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gradients import interleaved, paired
from benchmarks.neutral_task import MODELS, neutral_task, workload
from indexer import Ask, Task, load_task
from indexer.building.source import Options, open_source
from indexer.checkpoints.folder import open_run
from indexer.gradients.at_checkpoints import ModelAtCheckpoints
from indexer.methods.method import Batch, Method
from indexer.methods.tracin import TracIn
from indexer.projection.projections import make_projection
from indexer.task import read_rows

PROJECTIONS = ("rank1:256", "rank1:1024")
LARGEST_ERROR = 1e-4  # relative, float32: the two paths round at 1e-6, a wrong checkpoint or matrix is off by 1e-1
EXAMPLES = 8  # questions, in turn
PLAIN = "plain gradients"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model at its checkpoints, what is asked, and the methods that make vectors of it, by name."""

    name: str
    task: Task
    model: ModelAtCheckpoints
    methods: Mapping[str, Method]
    questions: Sequence[Batch]


def of_workload(name: str, projections: Sequence[str]) -> Subject:
    """Return a neutral workload under projections of the form ``rank1:256``."""
    task = neutral_task(name)
    source = open_source(task, open_run(workload(name)), Options(torch.float32))
    methods: dict[str, Method] = {}
    for projection in projections:
        kind, _, numbers = projection.partition(":")
        parameters = {"name": kind, "seed": 0, "numbers": int(numbers)}
        methods[projection] = TracIn(source.model, source.etas, make_projection(source.model.layout, parameters))
    return Subject(name, task, source.model, methods, _questions(task))


def of_index(folder: Path, task: Task) -> Subject:
    """Return an index as it is served."""
    index = Ask.open(folder, task).index
    return Subject(folder.name, task, index.model, {folder.name: index.method}, _questions(task))


def relative_error(subject: Subject, method: Method) -> float:
    """Return the largest distance of a query vector from the train vector of the same example, over its norm."""
    errors = []
    for question in subject.questions:
        expected = method.train_rows(question).vectors
        for _ in range(2):  # the first may go another way than those after it
            found, _ = method.query_vectors(question)
            errors.append(float((found - expected).norm() / expected.norm()))
    return max(errors)


def plain_gradients(subject: Subject) -> Callable[[Batch], None]:
    """Return what computes the gradient of an example's loss for all parameters at all checkpoints."""
    modules = [_module(subject.task.model(), state) for state in subject.model.states]

    def run(question: Batch) -> None:
        for module in modules:
            losses = subject.task.loss(module(question[0]), question[1])
            torch.autograd.grad(losses.sum(), [p for p in module.parameters() if p.requires_grad])

    return run


def measure(subject: Subject, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every way in every round; all ask the same question in a round."""
    asked = {PLAIN: plain_gradients(subject)} | {name: m.query_vectors for name, m in subject.methods.items()}

    def in_turn(run: Callable[[Batch], Any]) -> Callable[[], Any]:
        questions = itertools.cycle(subject.questions)
        return lambda: run(next(questions))

    return interleaved({name: in_turn(run) for name, run in asked.items()}, rounds)


def rows(subject: Subject, threads: int, rounds: int) -> list[str]:
    """Return a line of the table for every method: p50 of both, and the ratios within rounds."""
    torch.set_num_threads(threads)
    seconds = measure(subject, rounds)
    base = seconds.pop(PLAIN)
    return [
        f"| {subject.name} | {name} | {threads} | {1e3 * statistics.median(base):.2f} ms "
        f"| {1e3 * statistics.median(taken):.2f} ms | {paired(taken, base)} |"
        for name, taken in seconds.items()
    ]


def verified(subject: Subject) -> bool:
    """Print a line for every method, and return whether all vectors are right."""
    right = True
    for name, method in subject.methods.items():
        start = time.perf_counter()
        method.query_vectors(subject.questions[0])
        first, error = time.perf_counter() - start, relative_error(subject, method)
        right = right and error < LARGEST_ERROR  # NaN is below nothing
        said = f"relative error {error:.0e}, first question {first:.2f} s"
        print(f"{subject.name}, {name}: {said}, {subject.model.untraced or 'runs as a graph'}", flush=True)
    return right


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify, then print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS), help=",".join(MODELS))
    parser.add_argument("--projection", nargs="+", default=list(PROJECTIONS), metavar="NAME:NUMBERS")
    parser.add_argument("--index", type=Path, help="the folder of an index, in place of the workloads")
    parser.add_argument("--task", help="the task of the index")
    parser.add_argument("--threads", type=lambda text: [int(number) for number in text.split(",")], default=[1, 2])
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args(arguments)
    if (options.index is None) != (options.task is None):
        parser.error("--index and --task: expected both or neither")
    if options.index:
        subjects = [of_index(options.index, load_task(options.task))]
    else:
        subjects = [of_workload(name, options.projection) for name in options.models]
    right = [subject for subject in subjects if verified(subject)]
    print("\n| model | vectors | threads | plain gradients | query vector | ratio |\n" + "|---" * 6 + "|")
    for subject in right:
        for threads in options.threads:
            print("\n".join(rows(subject, threads, options.rounds)), flush=True)
    return int(len(right) < len(subjects))


def _module(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Return the module with these very tensors."""
    trains = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    module.load_state_dict(dict(state), strict=False, assign=True)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(trains[name])
    return module.eval()


def _questions(task: Task) -> list[Batch]:
    examples = task.train if task.test is None else task.test
    return [read_rows(examples, [row]) for row in range(EXAMPLES)]


if __name__ == "__main__":
    sys.exit(main())
