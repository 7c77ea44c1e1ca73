import pytest

from backend.engine.pace import Pace


@pytest.fixture
def pace() -> Pace:
    """Of which 60 s of audio took 2 s, with all places taken."""
    pace = Pace()
    pace.worked(2, fullness=1)
    pace.heard(60)
    pace.rests()
    return pace


def test_nothing_is_known_before_something_was_heard() -> None:
    pace = Pace()
    assert pace.at_least_s(60) == 0
    pace.worked(2, fullness=1)
    pace.rests()
    assert pace.at_least_s(60) == 0


def test_it_may_take_half_of_what_it_took(pace: Pace) -> None:
    assert pace.at_least_s(60) == 1


def test_what_runs_says_nothing_before_all_of_it_was_answered(pace: Pace) -> None:
    pace.worked(1, fullness=1)
    pace.heard(60)
    assert pace.at_least_s(60) == 1
    pace.rests()
    assert pace.at_least_s(60) == 0.5


def test_the_best_speed_counts(pace: Pace) -> None:
    pace.worked(6, fullness=1)
    pace.heard(60)
    pace.rests()
    assert pace.at_least_s(60) == 1


def test_work_for_nothing_is_not_held_against_what_comes_after_it(pace: Pace) -> None:
    pace.worked(100, fullness=1)  # all had left
    pace.rests()
    pace.worked(1, fullness=1)
    pace.heard(60)
    pace.rests()
    assert pace.at_least_s(60) == 0.5


def test_free_places_might_have_been_taken_for_nothing(pace: Pace) -> None:
    pace.worked(2, fullness=0.25)
    pace.heard(60)
    pace.rests()
    assert pace.at_least_s(60) == 0.25


def test_another_model_has_its_own_speed(pace: Pace) -> None:
    pace.worked(1, fullness=1)
    pace.heard(60)
    pace.forget()
    pace.rests()
    assert pace.at_least_s(60) == 0
