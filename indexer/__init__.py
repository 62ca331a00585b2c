"""Proponent's offline half and shared mathematics: which training examples made this model say that?"""

from indexer.ask.ask import Ask
from indexer.ask.filters import Filter
from indexer.ask.ranking import GivenExample, Hit, KnownExample, Question, Ranking
from indexer.building.build import build
from indexer.building.spec import BuildSpec
from indexer.codecs import ImageCodec, Preview
from indexer.editing.append import append
from indexer.editing.compact import compact
from indexer.editing.delete import delete
from indexer.editing.relabel import relabel
from indexer.errors import ProponentError
from indexer.record.recorder import CheckpointRecorder
from indexer.task import Task, load_task

__all__ = [
    "Ask",
    "BuildSpec",
    "CheckpointRecorder",
    "Filter",
    "GivenExample",
    "Hit",
    "ImageCodec",
    "KnownExample",
    "Preview",
    "ProponentError",
    "Question",
    "Ranking",
    "Task",
    "append",
    "build",
    "compact",
    "delete",
    "load_task",
    "relabel",
]
