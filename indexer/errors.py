"""Every error that Proponent raises on purpose, as one tree.

ProponentError
├── QuestionError               a question that cannot be answered as asked
│   ├── UnknownLabelError       a label that the task does not have
│   ├── InputFormatError        an input that the task's codec cannot read
│   ├── UnsupportedExplainError a quantity that the index's method does not explain
│   └── NotFoundError           something named that does not exist
│       ├── UnknownExampleError
│       ├── UnknownIndexError
│       └── UnknownVersionError
├── TaskError                   a task that cannot be loaded, or does not keep its contract
│   └── ProbeError              a model or loss whose per-example gradients would be wrong
├── CheckpointError             a checkpoint that is missing, unreadable or does not fit the model
│   ├── LearningRateError       no usable learning rate
│   └── ChoiceError             nothing to choose checkpoints by, or none to choose
├── RecordError                 a recording of a training that cannot start or go on
├── IndexFileError              an index that cannot be trusted
│   ├── CorruptIndexError       its files are not what its manifest says
│   └── TaskMismatchError       it was built with another task
├── BuildError                  a build that must not start or cannot go on
│   ├── TooLargeError           it would not fit
│   └── DiskFullError           the disk filled up while it wrote
├── SettingsError               a setting of the service that is out of range or not safe
└── MissingExtraError           an optional dependency is not installed

A message says what was expected, what was found, where, and what to do.
"""


class ProponentError(Exception):
    """The root: catch it to catch everything that Proponent raises on purpose."""


class QuestionError(ProponentError):
    """A question that cannot be answered as asked."""


class UnknownLabelError(QuestionError):
    """A label that the task does not have."""


class InputFormatError(QuestionError):
    """An input that the task's codec cannot read."""


class UnsupportedExplainError(QuestionError):
    """A quantity that the index's method does not explain."""


class NotFoundError(QuestionError):
    """Something named in the question does not exist."""


class UnknownExampleError(NotFoundError):
    """No example of that split and id."""


class UnknownIndexError(NotFoundError):
    """No index of that name."""


class UnknownVersionError(NotFoundError):
    """No version of that name in the index."""


class TaskError(ProponentError):
    """A task that cannot be loaded, or that does not keep its contract."""


class ProbeError(TaskError):
    """A model or loss whose per-example gradients would be silently wrong."""


class CheckpointError(ProponentError):
    """A checkpoint that is missing, unreadable or does not fit the model."""


class LearningRateError(CheckpointError):
    """A checkpoint without a usable learning rate."""


class ChoiceError(CheckpointError):
    """A run whose loss says nothing about which checkpoints to choose, or that has none where it falls."""


class RecordError(ProponentError):
    """A recording of a training that cannot start or go on."""


class IndexFileError(ProponentError):
    """An index that cannot be trusted."""


class CorruptIndexError(IndexFileError):
    """An index whose files are not what its manifest says."""


class TaskMismatchError(IndexFileError):
    """An index that was built with another task."""


class BuildError(ProponentError):
    """A build that must not start or cannot go on."""


class TooLargeError(BuildError):
    """A build that would not fit the machine."""


class DiskFullError(BuildError):
    """A build or an edit that filled the disk: make room and give the same command again."""


class SettingsError(ProponentError):
    """A setting of the service that is out of range or not safe."""


class MissingExtraError(ProponentError):
    """An optional dependency that is not installed."""
