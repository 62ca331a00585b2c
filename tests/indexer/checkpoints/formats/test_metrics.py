"""``metrics.csv`` of Lightning: which column is what, and which step a row is of."""

from pathlib import Path

import pytest

from indexer.checkpoints.formats.metrics import read_metrics
from indexer.checkpoints.formats.notes import Notes
from indexer.errors import CheckpointError


def written(folder: Path, text: str) -> Path:
    (folder / "metrics.csv").write_text(text)
    return folder / "metrics.csv"


def test_a_row_is_of_the_step_after_its_number_and_the_last_of_several_counts(tmp_path: Path) -> None:
    text = (
        "epoch,grad_norm,lr-SGD,lr-SGD-momentum,lr-SGD-weight_decay,step,train_loss\n"
        ",,0.1,0.9,0.0,0,\n,,0.1,0.9,0.0,0,\n0,2.5,,,,0,0.7\n,,0.05,0.9,0.0,3,\n0,inf,,,,3,nan\n0,,,,,4,x\n0,,,,,,0.1\n"
    )
    assert read_metrics(written(tmp_path, text), [None]) == Notes(
        {1: (0.1,), 4: (0.05,)}, {1: 0.7}, {1: 2.5, 4: float("inf")}
    )


@pytest.mark.parametrize(
    ("columns", "groups", "expected"),
    [
        ("lr-SGD", [None], (1.0,)),
        ("lr-SGD", [], (1.0,)),
        ("lr-Adam/pg2,lr-Adam/pg1", [None, None], (2.0, 1.0)),
        ("lr-Adam/pg2,lr-Adam/pg1", [], (2.0, 1.0)),
        ("lr-SGD/head,lr-SGD/body", ["body", "head"], (2.0, 1.0)),
        ("lr-SGD/pg1,lr-SGD/head", [None, "head"], (1.0, 2.0)),
        ("lr-SGD", [None, None], None),
        ("lr-SGD/pg1,lr-SGD/pg2", [None], None),
        ("lr-SGD/pg1,lr-SGD/pg3", [None, None], None),
        ("lr-SGD,lr-Adam", [], None),
        ("lr-SGD,lr-SGD/pg2", [], None),
        ("lr,learning_rate", [None], None),
    ],
)
def test_rates_are_those_of_the_groups(
    columns: str, groups: list[str | None], expected: tuple[float, ...] | None, tmp_path: Path
) -> None:
    found = read_metrics(written(tmp_path, f"step,{columns}\n0,1,2\n"), groups)
    assert found.rates == ({} if expected is None else {1: expected})


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("train_loss_step,train_loss", 2.0),
        ("val_loss,train_loss_step", 2.0),
        ("train_loss_epoch,loss", 2.0),
        ("val_loss,train/ce_loss_step", 2.0),
        ("trained,train/loss", 2.0),
        ("val_loss,train_loss_epoch", None),
    ],
)
def test_the_loss_is_that_of_the_steps(columns: str, expected: float | None, tmp_path: Path) -> None:
    found = read_metrics(written(tmp_path, f"step,{columns}\n0,1,2\n"), [])
    assert found.losses == ({} if expected is None else {1: expected})


@pytest.mark.parametrize("column", ["grad_norm", "grad_2.0_norm_total", "grad_inf_norm_total"])
def test_gradient_norms_are_found(column: str, tmp_path: Path) -> None:
    assert read_metrics(written(tmp_path, f"step,grad_2.0_norm/w,{column}\n6,1,2\n"), []).gradient_norms == {7: 2.0}


@pytest.mark.parametrize("text", ["", "step", "a,b\n1,2\n", "step,lr-SGD\n1\n-3,0.1\n1,0.1x\n", "step,lr-SGD\n9,0.1,3"])
def test_rows_of_another_form_are_passed_over(text: str, tmp_path: Path) -> None:
    found = read_metrics(written(tmp_path, text), [None])
    assert found.rates == ({10: (0.1,)} if text.endswith(",3") else {})


@pytest.mark.parametrize("content", [b"step\n\xff\n", b'step\n"' + b"x" * 200_000])
def test_what_is_no_csv_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"metrics\.csv' is not readable as CSV; move it away to do without its rat"
    ):
        read_metrics(tmp_path / "metrics.csv", [])
