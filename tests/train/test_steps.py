from __future__ import annotations

import pytest

from picolm.base.errors import PicoError
from picolm.train.steps import checkpoint_steps, expand_steps


def test_every_n_steps_keeps_the_first_and_the_last():
    assert checkpoint_steps(None, 40, 100) == [0, 40, 80, 100]


def test_a_list_is_taken_as_it_is_with_both_ends():
    assert checkpoint_steps((5, 3, 500), 40, 100) == [0, 3, 5, 100]


def test_log_spaced_then_regular_as_pythia_saved_them():
    expected = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000, 3000, 4000]
    assert expand_steps("0,1,2,4..512,1000,2000..", 4000) == expected


@pytest.mark.parametrize("text", ["5,3", "a,b", "1..", "4,4..9", "1,,2", "0,-1"])
def test_text_that_means_no_steps_is_refused(text: str):
    with pytest.raises(PicoError, match=r"checkpointing\.steps"):
        expand_steps(text, 100)


@pytest.mark.parametrize(
    ("text", "steps"),
    [("0,1,2..5", [0, 1, 2, 3, 4, 5]), ("3,9,27..100", [3, 9, 27, 81]), ("0, 40 ..", [0, 40, 80]), ("7", [7])],
)
def test_the_continuation_follows_the_steps_before_it(text: str, steps: list[int]):
    assert expand_steps(text, 100) == steps
