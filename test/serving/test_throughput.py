import pytest

from backend.serving.throughput import Throughput


def answer_a_minute(pace: Throughput, worked_s: float, fullness: float = 1.0) -> None:
    pace.worked(worked_s, fullness)
    pace.heard(60)


@pytest.fixture
def pace() -> Throughput:
    """Of which a minute of audio took 2 s, with all places taken."""
    pace = Throughput()
    answer_a_minute(pace, 2)
    pace.rests()
    return pace


def test_nothing_is_known_before_something_was_heard() -> None:
    pace = Throughput()
    assert pace.at_least_s(60) == 0
    pace.worked(2, fullness=1)
    pace.rests()
    assert pace.at_least_s(60) == 0


@pytest.mark.parametrize(
    ("worked_s", "fullness", "least_s"),
    [(2, 1, 1), (1, 1, 0.5), (6, 1, 1), (2, 0.25, 0.25)],
    ids=["half of what it took", "the best speed counts", "whenever it was", "free places might have been taken"],
)
def test_it_takes_half_of_what_it_took_at_best(
    pace: Throughput, worked_s: float, fullness: float, least_s: float
) -> None:
    answer_a_minute(pace, worked_s, fullness)
    assert pace.at_least_s(60) == 1  # not before all that the work was for has been answered
    pace.rests()
    assert pace.at_least_s(60) == least_s


def test_work_for_nothing_is_not_held_against_what_comes_after_it(pace: Throughput) -> None:
    pace.worked(100, fullness=1)  # all had left
    pace.rests()
    answer_a_minute(pace, 1)
    pace.rests()
    assert pace.at_least_s(60) == 0.5


def test_another_model_has_its_own_speed(pace: Throughput) -> None:
    answer_a_minute(pace, 1)
    pace.forget()
    pace.rests()
    assert pace.at_least_s(60) == 0
