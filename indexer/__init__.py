"""Proponent's offline half and shared mathematics: which training examples made this model say that?"""

from indexer.ask.ask import Ask
from indexer.ask.ranking import GivenExample, Hit, KnownExample, Question, Ranking
from indexer.building.build import build
from indexer.building.spec import BuildSpec
from indexer.codecs import ImageCodec, Preview
from indexer.errors import ProponentError
from indexer.record.recorder import CheckpointRecorder
from indexer.task import Task, load_task

__all__ = [
    "Ask",
    "BuildSpec",
    "CheckpointRecorder",
    "GivenExample",
    "Hit",
    "ImageCodec",
    "KnownExample",
    "Preview",
    "ProponentError",
    "Question",
    "Ranking",
    "Task",
    "build",
    "load_task",
]
