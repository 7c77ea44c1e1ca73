import pytest

from backend.serving.throughput import Throughput


def answer_a_minute(throughput: Throughput, compute_s: float, occupancy: float = 1.0) -> None:
    throughput.add_compute(compute_s, occupancy)
    throughput.add_audio(60)


@pytest.fixture
def throughput() -> Throughput:
    """A minute of audio took 2 s, with all places taken."""
    throughput = Throughput()
    answer_a_minute(throughput, 2)
    throughput.end_window()
    return throughput


def test_nothing_is_known_before_audio_was_answered() -> None:
    throughput = Throughput()
    assert throughput.min_duration_s(60) == 0
    throughput.add_compute(2, occupancy=1)
    throughput.end_window()
    assert throughput.min_duration_s(60) == 0


@pytest.mark.parametrize(
    ("compute_s", "occupancy", "min_s"),
    [(2, 1, 1), (1, 1, 0.5), (6, 1, 1), (2, 0.25, 0.25)],
    ids=["half of what it took", "the best speed counts", "whenever it was", "free places might have been taken"],
)
def test_the_bound_is_half_of_the_best_duration_so_far(
    throughput: Throughput, compute_s: float, occupancy: float, min_s: float
) -> None:
    answer_a_minute(throughput, compute_s, occupancy)
    assert throughput.min_duration_s(60) == 1  # the busy period has not ended
    throughput.end_window()
    assert throughput.min_duration_s(60) == min_s


def test_compute_for_cancelled_jobs_does_not_count_in_the_next_busy_period(throughput: Throughput) -> None:
    throughput.add_compute(100, occupancy=1)  # every job was cancelled
    throughput.end_window()
    answer_a_minute(throughput, 1)
    throughput.end_window()
    assert throughput.min_duration_s(60) == 0.5


def test_another_model_has_its_own_speed(throughput: Throughput) -> None:
    answer_a_minute(throughput, 1)
    throughput.reset()
    throughput.end_window()
    assert throughput.min_duration_s(60) == 0


def test_a_server_that_is_never_idle_is_measured_and_not_taken_for_slower_than_it_was() -> None:
    throughput = Throughput()
    for _ in range(7):  # 10 s of compute each
        throughput.add_audio(100)
        throughput.add_compute(20, occupancy=0.5, running_audio_s=240)
    assert throughput.min_duration_s(60) == 60 / (2 * (600 + 240) / 60)


def test_a_long_window_without_an_answer_goes_on() -> None:
    throughput = Throughput()
    throughput.add_compute(300, occupancy=1, running_audio_s=30)
    assert throughput.min_duration_s(60) == 0
    throughput.add_audio(30)
    throughput.add_compute(0, occupancy=1)
    assert throughput.min_duration_s(60) == 60 / (2 * 30 / 300)


def test_the_time_that_audio_takes_is_that_of_the_best_speed(throughput) -> None:
    assert Throughput().duration_s(600) == 0
    assert throughput.duration_s(600) == 20
    answer_a_minute(throughput, 1)
    throughput.end_window()
    assert throughput.duration_s(600) == 10
