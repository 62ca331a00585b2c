"""The beginning: everything that decides a result is in the record, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from indexer import BuildSpec, Task
from indexer.building.begin import begin, rows_by_split
from indexer.building.journal import PlanRecord
from indexer.index.versions import IndexVersion, open_version
from tests.micro import micro_run, micro_spec, micro_task


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return micro_run(tmp_path_factory.mktemp("micro") / "run")


def test_the_record_is_what_the_manifest_says(task: Task, run: Path, index_folder: Path) -> None:
    version: IndexVersion = open_version(index_folder)
    spec = BuildSpec(run, projection={"name": "identity"}, batch_size=64)
    beginning = begin(task, spec, None)
    manifest, record = version.manifest, beginning.record
    assert (record.plan, record.task, record.probe) == (manifest.plan, manifest.task, manifest.probe)
    assert record.checkpoints == manifest.checkpoints and beginning.plan == manifest.plan
    assert record.rows == manifest.splits == rows_by_split(task)
    assert version.objects.path(record.probe.object).read_bytes() == beginning.probe


def test_the_record_survives_its_file_and_a_move_of_the_run(checkpoints: Path, copy_of: Callable[[Path], Path]) -> None:
    one, other = (begin(micro_task(), micro_spec(run), None).record for run in (checkpoints, copy_of(checkpoints)))
    assert one == other == PlanRecord.model_validate(orjson.loads(orjson.dumps(one.model_dump(mode="json"))))


def test_a_plan_is_taken_as_it_is_but_for_the_versions_of_here(checkpoints: Path) -> None:
    spec = replace(micro_spec(checkpoints), batch_size=None)
    planned = begin(micro_task(), spec, None).plan
    before = planned.model_copy(update={"batch_size": 3, "threads": 7, "versions": {"torch": "1.0"}})
    found = begin(micro_task(), spec, before).plan
    assert found == planned.model_copy(update={"batch_size": 3, "threads": 7})
