"""The callback that shows nothing."""

import pytest

from indexer.building.progress import Progress, silent


def test_silence_is_a_callback_that_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    progress: Progress = silent
    progress("vectors", 1, 2)
    assert capfd.readouterr() == ("", "")
