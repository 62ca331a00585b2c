"""Edits in random sequences: what comes out is an index that was built of the same rows, and old versions stay.

With projections that need no data, the other index is a real build of a task with exactly the living rows and their
labels. The bases of pca are fitted once, on the rows of the first build, and kept by every edit; there the other one is
a new pass under the same bases and code, and its scores brute force over the vectors of that pass.
"""

import itertools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from indexer import Ask, KnownExample, Question, append, compact, delete, relabel
from indexer.index.objects import Objects
from indexer.index.versions import IndexVersion, open_version
from tests.indexer.editing.small import (
    BUILT,
    LABELS,
    ROWS,
    TARGETS,
    Fresh,
    built_fresh,
    differences,
    small_index,
    small_run,
    small_task,
    written_fresh,
)

PCA = {"name": "pca", "bytes": 60}
PROJECTIONS: Mapping[str, Mapping[str, Any]] = {
    "identity": {"name": "identity"},
    "rank1": {"name": "rank1", "numbers": 12},
    "countsketch": {"name": "countsketch", "numbers": 24},
    "pca": PCA,
}
OWN = {str(row): LABELS[int(target)] for row, target in enumerate(TARGETS)}
FEWEST = 4  # training examples that a build, the one to compare with, takes
ALL = Question(KnownExample("test", "0"), k=ROWS)


class Edits(RuleBasedStateMachine):
    """An index and a plain model of it: living ids with their labels, and how many rows were ever taken in."""

    def __init__(self, first: Path, run: Path, scratch: Path, projection: Mapping[str, Any]) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=scratch))
        self.folder = Path(shutil.copytree(first, self.place / "index"))
        self.run, self.projection = run, projection
        self.living = dict(itertools.islice(OWN.items(), BUILT))
        self.taken, self.segments, self.dead = BUILT, 1, False
        self.version = open_version(self.folder)
        self.before = Ask.open(self.folder, small_task())
        self.answered = self.before.query(ALL).proponents

    def committed(self, version: IndexVersion, edit: str) -> None:
        """Check the lineage of a new version, and that it is the active one."""
        assert (version.manifest.parent, version.manifest.edit) == (self.version.version, edit)
        assert open_version(self.folder) == version
        assert version.manifest.rows == len(self.living)
        self.version = version

    @rule(more=st.integers(1, 4))
    def append_what_is_new(self, more: int) -> None:
        rows = range(self.taken, min(self.taken + more, ROWS))
        if rows:
            self.living |= {str(row): OWN[str(row)] for row in rows}
            self.taken, self.segments = rows.stop, self.segments + 1
            self.committed(append(self.folder, small_task(rows.stop)), "append")

    @rule(data=st.data())
    def bring_back(self, data: st.DataObject) -> None:
        dead = [id for id in OWN if id not in self.living and int(id) < self.taken]
        if dead:
            ids = data.draw(st.lists(st.sampled_from(dead), min_size=1, max_size=3, unique=True))
            self.living |= {id: OWN[id] for id in ids}
            self.segments += 1
            self.committed(append(self.folder, small_task(), [int(id) for id in ids]), "append")

    @rule(data=st.data())
    def delete_some(self, data: st.DataObject) -> None:
        if len(self.living) > FEWEST:
            most = min(4, len(self.living) - FEWEST)
            for id in (ids := data.draw(st.lists(self.ids(), min_size=1, max_size=most, unique=True))):
                del self.living[id]
            self.dead = True
            self.committed(delete(self.folder, ids), "delete")

    @rule(data=st.data())
    def relabel_some(self, data: st.DataObject) -> None:
        labels = {}
        for id in data.draw(st.lists(self.ids(), min_size=1, max_size=3, unique=True)):
            labels[id] = data.draw(st.sampled_from([label for label in LABELS if label != self.living[id]]))
        self.living |= labels
        self.dead, self.segments = True, self.segments + 1
        self.committed(relabel(self.folder, small_task(), labels), "relabel")

    @precondition(lambda self: self.dead or self.segments > 1)
    @rule()
    def compact_it(self) -> None:
        self.dead, self.segments = False, 1
        self.committed(compact(self.folder), "compact")

    def ids(self) -> st.SearchStrategy[str]:
        return st.sampled_from(sorted(self.living, key=int))

    def fresh(self) -> Fresh:
        out = Path(tempfile.mkdtemp(dir=self.place)) / "fresh"
        if self.projection == PCA:
            out.mkdir()
            return written_fresh(self.living, self.before.index, Objects(out))
        return built_fresh(self.living, self.run, out, self.projection)

    def teardown(self) -> None:
        after = Ask.open(self.folder, small_task())
        assert differences(after, self.fresh()) == []
        after.close()
        assert self.before.query(ALL).proponents == self.answered
        for _ in open_version(self.folder).verify():
            pass
        self.before.close()
        shutil.rmtree(self.place)


def run_edits(projection: str, scratch: Path, *, examples: int, steps: int) -> None:
    """Run random sequences of edits of one index."""
    (scratch / "run").mkdir()
    run = small_run(scratch / "run")
    first = small_index(run, scratch / "first", PROJECTIONS[projection])

    class OfThisIndex(Edits):
        def __init__(self) -> None:
            super().__init__(first, run, scratch, PROJECTIONS[projection])

    run_state_machine_as_test(
        OfThisIndex,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            phases=(Phase.generate,),  # to make a failure shorter would take many more indexes
        ),
    )


@pytest.mark.parametrize("projection", ["identity", "pca"])
def test_edits_in_any_order_are_a_build_of_the_same_rows(projection: str, tmp_path: Path) -> None:
    run_edits(projection, tmp_path, examples=2, steps=6)


@pytest.mark.slow
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_more_and_longer_sequences_of_edits_are_too(projection: str, tmp_path: Path) -> None:
    run_edits(projection, tmp_path, examples=25, steps=15)
