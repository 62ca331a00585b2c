"""Gathering notes of steps, and reading them at a checkpoint."""

import numpy as np

from indexer.checkpoints.formats.notes import Notes, loss_at, rates_at


def test_notes_of_different_steps_become_one_history() -> None:
    found = Notes({3: (0.1, 0.2), 1: (0.3, 0.4)}, {2: 0.5}, {3: 7.0}).history()
    assert found.steps.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(found.learning_rates, [[0.3, 0.4], [np.nan, np.nan], [0.1, 0.2]])
    np.testing.assert_array_equal(found.losses, [np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(found.gradient_norms, [np.nan, np.nan, 7.0])
    assert Notes().history().steps.tolist() == []


def test_rates_between_noted_steps_are_interpolated_and_say_so() -> None:
    noted = Notes({10: (0.2,), 20: (0.1,)}, {12: 0.5}).history()
    assert rates_at(noted, 10) == ((0.2,), None)
    rates, origin = rates_at(noted, 15) or ((), None)
    np.testing.assert_allclose(rates, [0.15])
    assert origin == "interpolated between the steps 10 and 20"
    assert rates_at(noted, 9) is rates_at(noted, 21) is None
    assert rates_at(Notes({}, {1: 0.5}).history(), 1) is rates_at(Notes().history(), 1) is None


def test_the_loss_is_the_one_noted_nearest_before() -> None:
    noted = Notes({8: (0.1,)}, {2: 0.5, 6: 0.4}).history()
    assert [loss_at(noted, step) for step in (1, 2, 5, 6, 9)] == [None, 0.5, 0.5, 0.4, 0.4]


def test_rates_that_are_held_say_so() -> None:
    noted = Notes({10: (0.2,), 20: (0.1,)}, held=True).history()
    assert rates_at(noted, 15) == ((0.2,), "as noted at step 10, taken to be held until step 20")
