"""The choice of checkpoints: the rule's parts by hand, curves of every kind, and what is refused by its text."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.checkpoints.choose import Choice, choose, matched
from indexer.checkpoints.run import Checkpoint, Run
from indexer.errors import CheckpointError, ChoiceError
from tests.indexer.checkpoints.curves import EVERY, STEPS, decay, run_of, short, steps

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
NAN, INF = float("nan"), float("inf")
ADVICE = r"[Nn]ame the checkpoints with `--steps`"


def at(choice: Choice) -> list[int | None]:
    return [checkpoint.step for checkpoint in choice.chosen]


def why(choice: Choice) -> list[str]:
    """The beginning of each reason."""
    return ["" if v.why_not is None else re.split(r":| \(", v.why_not)[0] for v in choice.verdicts]


@PROPERTY
@given(st.lists(st.integers(0, 40), min_size=1, max_size=8, unique=True), st.integers(1, 9))
def test_no_other_checkpoints_match_the_shares_better(drawn: list[int], k: int) -> None:
    """Against all subsets, in whole numbers; of equals the first in the order of training."""
    levels = np.array(sorted(drawn, reverse=True), dtype=np.float64)
    if k >= len(levels):
        assert matched(levels, k) == list(range(len(levels)))
        return
    middles = 2 * k * levels[0] - (2 * np.arange(k) + 1) * (levels[0] - levels[-1])
    subsets = list(itertools.combinations(range(len(levels)), k))
    costs = [((2 * k * levels[list(subset)] - middles) ** 2).sum() for subset in subsets]
    assert tuple(matched(levels, k)) == subsets[costs.index(min(costs))]


def test_of_two_that_are_equally_near_the_earlier_is_taken() -> None:
    assert matched(np.array([3.0, 2.0, 1.0, 0.0]), 1) == [1]
    assert matched(np.array([0.3, 0.2, 0.1, 0.0]), 1) == [1]  # equally near but for rounding


def test_a_steady_fall_is_cut_into_equal_shares() -> None:
    choice = choose(run_of(3 - 2 * steps() / STEPS, EVERY), 4)
    assert at(choice) == [1500, 4000, 6500, 9000]  # the nearest to 500 + 9500 (j - 1/2)/4
    assert [v.level for v in choice.verdicts] == pytest.approx([3 - 2 * step / STEPS for step in EVERY], abs=0.02)


def test_checkpoints_are_denser_where_the_loss_falls_faster(rng: np.random.Generator) -> None:
    choice = choose(run_of(decay() + 0.3 * rng.standard_normal(STEPS), EVERY), 5)
    chosen = [step for step in at(choice) if step is not None]
    assert len(chosen) == 5 and chosen[-1] <= 4500
    assert all(b >= a for a, b in itertools.pairwise(np.diff(chosen)))
    assert why(choice)[-1] == "after convergence"


def test_the_beginning_is_left_out_while_the_loss_fluctuates(rng: np.random.Generator) -> None:
    warm = np.where(steps() < 2000, 2.3 + 1.5 * steps() / 2000, 3.8 * np.exp(-(steps() - 2000) / 2000) + 0.05)
    choice = choose(run_of(warm + 0.1 * rng.standard_normal(STEPS), EVERY), 5)
    assert why(choice)[:3] == ["early"] * 3
    assert choice.verdicts[0].why_not == "early: the loss does not fall steadily yet"
    assert at(choice)[0] == 3000 and len(choice.chosen) == 5


def test_of_a_plateau_one_checkpoint_is_enough() -> None:
    flat = np.clip(5 - steps() / 1000, 2, None) - np.clip((steps() - 7000) / 2000, 0, None)
    choice = choose(run_of(flat, EVERY), 12)
    assert [step for step in at(choice) if step is not None and 3100 < step < 7000] == [3500]
    assert why(choice)[7:13] == ["no fall since the checkpoint before"] * 6


@pytest.mark.parametrize("losses", [(3.0, 2.0, 1e6, 1.0, 0.5), (3.0, 2.0, INF, 1.0, 0.5), (3.0, 2.0, NAN, 1.0, 0.5)])
def test_a_spike_does_not_move_the_others(losses: tuple[float, ...]) -> None:
    choice = choose(short(*losses), 5)
    assert at(choice)[:2] == [1, 2] and at(choice)[-2:] == [4, 5]


def test_a_checkpoint_at_a_spike_is_out_and_one_at_a_bad_batch_is_not(rng: np.random.Generator) -> None:
    losses = decay() + 0.1 * rng.standard_normal(STEPS)
    losses[998:1003] = 1e6
    losses[1499] = 1e6
    choice = choose(run_of(losses, EVERY), 5)
    assert why(choice)[:3] == ["", "at a spike of the loss", ""]


def test_what_comes_after_a_rise_hides_no_spike_before_it(rng: np.random.Generator) -> None:
    losses = decay() + 0.1 * rng.standard_normal(STEPS)
    losses[998:1003] += 5
    losses[3000:] = 50 + 20 * rng.standard_normal(STEPS - 3000)
    choice = choose(run_of(losses, EVERY), 5)
    assert choice.curve.rises_from == 3001.0
    assert choice.verdicts[1].why_not == "at a spike of the loss"


def test_what_comes_after_the_loss_broke_is_out() -> None:
    losses = decay()
    losses[3000:] = NAN
    choice = choose(run_of(losses, EVERY), 5)
    assert why(choice)[6:] == ["the loss is not finite from step 3,001 on"] * 14
    assert choice.notes == ("the loss is not finite from step 3,001 on",)
    losses[3000:] = 7.0
    choice = choose(run_of(losses, EVERY), 5)
    assert why(choice)[6:] == ["the loss rises from step 3,001 on"] * 14
    assert choice.notes == ("the loss rises from step 3,001 on and does not come back",)


def test_without_a_step_or_a_loss_near_it_a_checkpoint_is_out() -> None:
    choice = choose(run_of(decay()[:2000], [0, 500, None, 1500, 2001, 2500]), 5)
    assert why(choice) == [
        "no step of the training leads to it", "", "no step is noted for it", "", "", "no loss is noted near its step",
    ]  # fmt: skip
    assert choice.verdicts[2].level is None and choice.verdicts[2].loss is None
    assert choice.notes == ("3 of 5: no other checkpoint lies where the loss falls steadily",)


def test_after_convergence_the_first_may_be_chosen() -> None:
    choice = choose(run_of(decay(), [8000, 9000, 10_000]), 2, converged=0.5)
    assert at(choice) == [8000, 9000]
    assert choice.verdicts[2].why_not == "after convergence (within 50% of the end)"


def test_an_end_within_noise_is_called_so(rng: np.random.Generator) -> None:
    """All of the fall is over before the first checkpoint; what is left is noise."""
    choice = choose(run_of(decay(50.0) + 0.02 * rng.standard_normal(STEPS), range(1000, STEPS + 1, 1000)), 5)
    assert at(choice) == [1000]
    assert choice.verdicts[-1].why_not == "after convergence (within noise of the end)"


def test_swings_are_no_noise_of_the_end(rng: np.random.Generator) -> None:
    """Restarts of the rate: the residuals are as high as the swings, and half of the fall was within their error."""
    swings = 1.0 * (1 - steps() % 2500 / 2500) * (steps() > 2500)
    losses = 0.5 + 1.5 * np.exp(-steps() / 2000) + swings + 0.05 * rng.standard_normal(STEPS)
    choice = choose(run_of(losses, EVERY), 5)
    assert why(choice).count("after convergence") <= 1
    assert 9000 in at(choice)


def test_few_losses_give_a_rough_choice() -> None:
    choice = choose(short(3.0, 2.0, 1.0), 3)
    assert at(choice) == [1, 2, 3]
    assert choice.notes == ("only 3 losses are noted, so that the choice is rough",)
    assert at(choose(short(2.0, 1.0), 1)) == [1]


def test_what_another_stands_for_is_named() -> None:
    choice = choose(short(8.0, 7.0, 6.0, 4.0, 2.0, 0.0), 2)
    assert at(choice) == [3, 5]
    assert [v.why_not for v in choice.verdicts][:2] == ["step 3 stands for it"] * 2


def test_one_checkpoint_in_a_fall_is_chosen() -> None:
    assert at(choose(run_of(decay(), [1000]), 5)) == [1000]


def test_checkpoints_in_any_order_and_twice() -> None:
    choice = choose(run_of(decay(), [2000, 500, 1000, 500]), 5)
    assert why(choice) == ["", "", "", "no fall since the checkpoint before"]


def test_checkpoints_as_dense_as_the_history(rng: np.random.Generator) -> None:
    losses = decay() + 0.3 * rng.standard_normal(STEPS)
    choice = choose(run_of(losses[::50], range(1, STEPS + 1, 25), range(1, STEPS + 1, 50)), 8)
    levels = [v.level for v in choice.verdicts if v.chosen and v.level is not None]
    assert len(levels) == 8
    assert np.diff(levels) == pytest.approx(np.full(7, (levels[-1] - levels[0]) / 7), rel=0.9)


@PROPERTY
@given(
    st.lists(st.integers(-30, 30), min_size=2, max_size=40),
    st.sampled_from([2.0**-900, 2.0**-3, 2.0**900]),
    st.integers(-99, 99),
    st.integers(1, 7),
)
def test_units_of_the_loss_do_not_matter(drawn: list[int], scale: float, shift: int, k: int) -> None:
    """Powers of two keep whole numbers exact, so that every tie stays one."""

    def outcome(losses: np.ndarray) -> list[str] | str:
        try:
            return why(choose(run_of(losses, range(1, len(losses) + 1)), k))
        except ChoiceError as exc:
            return re.sub(r"is \S+ throughout", "is constant", str(exc).partition(":")[0])

    losses = np.array(drawn, dtype=np.float64) - 3 * np.arange(len(drawn))
    assert outcome(losses) == outcome((losses + shift) * scale)


@PROPERTY
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=60), st.integers(1, 9))
def test_the_chosen_fall_and_are_no_more_than_asked(drawn: list[float], k: int) -> None:
    try:
        choice = choose(run_of(drawn, range(1, len(drawn) + 1)), k)
    except ChoiceError:
        return
    levels = [v.level for v in choice.verdicts if v.chosen and v.level is not None]
    assert 1 <= len(levels) <= k
    assert all(b < a for a, b in itertools.pairwise(levels))
    assert (len(levels) < k) == any(note.startswith(f"{len(levels)} of {k}: ") for note in choice.notes)


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ((1.0,), "the loss of 'runs/made' is noted only once; expected a loss that falls"),
        (
            (1.0, 1.0, 1.0),
            "the loss of 'runs/made' is 1 throughout; expected",
        ),
        (
            (1.0, 3.0, 1.1, 2.9),
            r"does not fall by more than noise: from 1 to 2\.9, a falling curve explains \d+\.\d% of how far the "
            r"losses lie from their median; with 4 values it would have to explain more than 50\.0%; expected",
        ),
        (
            tuple(1 + 0.3 * np.sin(steps() / 700)),
            r"losses lie from their median; a rising one explains \d+\.\d%, which is no less than half as much",
        ),
        (
            tuple(range(1, 40)),
            r"'runs/made' rises from step \d+ on, and does not fall steadily before; expected a loss",
        ),
    ],
)
def test_a_loss_that_does_not_fall_is_refused(losses: tuple[float, ...], text: str) -> None:
    with pytest.raises(ChoiceError, match=rf"{text}.*{ADVICE}"):
        choose(short(*map(float, losses)), 2)


def test_flat_noise_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ChoiceError, match="does not fall by more than noise"):
        choose(run_of(1 + 0.1 * rng.standard_normal(STEPS), EVERY), 5)


def test_no_checkpoint_where_the_loss_falls_is_refused_with_the_reasons() -> None:
    expected = rf"'runs/made' has no checkpoint where the loss falls steadily \(1\.pt: no step is noted for it; 2\.pt: no loss is noted near its step\); {ADVICE}"  # noqa: E501
    with pytest.raises(ChoiceError, match=expected):
        choose(run_of(decay(), [None, 20_000]), 5)


def test_less_than_one_is_refused() -> None:
    with pytest.raises(ChoiceError, match="0 checkpoints to choose: expected at least 1") as refused:
        choose(short(3.0, 2.0, 1.0), 0)
    assert isinstance(refused.value, CheckpointError)


def test_the_losses_of_the_checkpoints_do_where_there_is_no_history() -> None:
    listed = tuple(Checkpoint(Path(f"{s}.pt"), step=s, train_loss=2.0**-s) for s in range(1, 11))
    run = Run(Path("r"), "made", listed)
    assert at(choose(run, 3)) == at(
        choose(replace(run_of(2.0 ** -np.arange(1, 11), range(1, 11)), folder=Path("r")), 3)
    )
