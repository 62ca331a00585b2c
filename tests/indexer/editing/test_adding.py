"""Rows that are added: made by what the index was built with, and refused where that cannot be."""

from pathlib import Path

import numpy as np
import pytest
import torch

from indexer import append, relabel
from indexer.editing.adding import NewRows, open_to_add
from indexer.editing.edit import editing
from indexer.errors import BuildError
from indexer.index.store import open_store
from indexer.index.versions import open_version
from indexer.methods.registry import METHODS
from indexer.methods.tracin_kind import TracInKind
from tests.indexer.editing.small import BUILT, INPUTS, LABELS, ROWS, TARGETS, small_task


class OnAllRows(TracInKind):
    """A method that every training row has part in, as the influence function will be."""

    fitted_on_all_rows = True


def test_rows_are_a_data_set_with_the_labels_that_are_indexed() -> None:
    new = NewRows(small_task(), [20, 3], {3: "star"})
    assert len(new) == 2
    assert torch.equal(new[0][0], INPUTS[20]) and int(new[0][1]) == int(TARGETS[20])
    assert torch.equal(new[1][0], INPUTS[3]) and LABELS[int(new[1][1])] == "star"
    assert torch.equal(new.read(1)[1], TARGETS[3])


def test_records_are_those_of_the_code_and_bases_of_the_index(folder: Path) -> None:
    version = append(folder, small_task())
    with editing(folder, "append") as edit:
        index = open_to_add(edit, small_task())
    made = index.method.train_rows((INPUTS[BUILT:], TARGETS[BUILT:]))
    code, influence = index.store.code, made.self_influence
    assert code is not None and influence is not None
    records = open_store(version.objects, version.manifest.vectors).stored(range(BUILT, ROWS))
    norms = influence.sum(1).sqrt().numpy()
    assert (code.outside(made.vectors.numpy(), records) <= 1e-5 * norms).all()
    np.testing.assert_allclose(index.examples.totals()[BUILT:], influence.sum(1).numpy(), rtol=1e-5)
    index.examples.close()


def test_a_method_that_is_fitted_on_all_rows_takes_no_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_version(folder)
    monkeypatch.setitem(METHODS, "tracin", OnAllRows())
    label = LABELS[(int(TARGETS[0]) + 1) % 3]
    with pytest.raises(
        BuildError, match=r"append: method 'tracin' is fitted on all training examples, and the rows of"
    ):
        append(folder, small_task())
    with pytest.raises(BuildError, match=r"relabel: method 'tracin' is fitted on .* new set; build a new index"):
        relabel(folder, small_task(), {"0": label})
    assert open_version(folder) == before


def test_only_the_probe_outputs_of_rows_that_changed_are_made_again(folder: Path) -> None:
    before = open_version(folder).manifest.probe
    assert append(folder, small_task(), [12]).manifest.probe == before
    changed = {"1": LABELS[(int(TARGETS[1]) + 1) % 3]}
    assert ("1" in before.ids) == (relabel(folder, small_task(), changed).manifest.probe != before)
