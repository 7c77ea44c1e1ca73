"""Which server is next, which is left out, and that a recording uses all of them: with a clock of the test's own."""

from __future__ import annotations

import threading

import pytest

from backend.remote.faults_of_servers import CANCELLED, REFUSED, UNREACHABLE
from backend.remote.servers import Server, Servers
from backend.thresholds import LEFT_OUT_S, PROBED_AFTER_S


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def servers_of(count: int, concurrency: int, clock: Clock) -> Servers:
    return Servers([f"http://{number}" for number in range(1, count + 1)], concurrency, clock)


def taken(servers: Servers, tried: tuple[Server, ...] = ()) -> Server:
    server = servers.acquire(tried, lambda: True)
    assert server is not None
    return server


def test_the_server_with_the_fewest_in_flight_is_next(clock) -> None:
    servers = servers_of(3, 4, clock)
    first = [taken(servers) for _ in range(6)]
    assert [server.number for server in first] == [1, 2, 3, 1, 2, 3]
    servers.release(first[1], None)
    servers.release(first[4], None)
    assert [taken(servers).number for _ in range(3)] == [2, 2, 1]


def test_no_server_has_more_than_its_concurrency(clock) -> None:
    """The one that waits gets the first place that is free."""
    servers = servers_of(2, 2, clock)
    all_taken = [taken(servers) for _ in range(4)]
    got: list[Server] = []
    waiting = threading.Thread(target=lambda: got.append(taken(servers)))
    waiting.start()
    assert not got
    servers.release(all_taken[2], None)
    waiting.join(20)
    assert got == [all_taken[2]]


def test_one_that_is_no_longer_wanted_stops_waiting(clock) -> None:
    servers = servers_of(1, 1, clock)
    taken(servers)
    wanted, got = [True], []
    waiting = threading.Thread(target=lambda: got.append(servers.acquire((), lambda: wanted[0])))
    waiting.start()
    wanted[0] = False
    servers.wake()
    waiting.join(20)
    assert got == [None]


def test_a_server_that_failed_is_left_out_until_a_probe_succeeds(clock) -> None:
    servers = servers_of(2, 8, clock)
    failed = taken(servers)
    servers.release(failed, UNREACHABLE)
    assert {taken(servers).number for _ in range(4)} == {2}
    assert servers.due_for_probe() == []
    clock.now += LEFT_OUT_S
    assert failed in servers.due_for_probe()
    assert failed not in servers.due_for_probe()  # one probe at a time
    servers.probed(failed, UNREACHABLE)
    assert taken(servers).number == 2
    clock.now += LEFT_OUT_S
    assert failed in servers.due_for_probe()
    servers.probed(failed, None)
    assert taken(servers) is failed


@pytest.mark.parametrize("fault", [REFUSED, CANCELLED])
def test_a_passage_that_was_refused_or_cancelled_leaves_no_server_out(clock, fault) -> None:
    servers = servers_of(2, 1, clock)
    servers.release(taken(servers), fault)
    assert taken(servers).number == 1


def test_where_all_are_left_out_the_first_that_failed_is_asked(clock) -> None:
    servers = servers_of(3, 4, clock)
    three = [taken(servers) for _ in range(3)]
    for number in (1, 0, 2):
        clock.now += 1
        servers.release(three[number], UNREACHABLE)
    assert taken(servers).number == 2
    assert taken(servers, (three[1],)).number == 1
    assert servers.acquire(three, lambda: True) is None


def test_a_silent_server_with_passages_is_probed_and_one_that_speaks_is_not(clock) -> None:
    servers = servers_of(3, 4, clock)
    silent, speaking = taken(servers), taken(servers)
    clock.now += PROBED_AFTER_S
    servers.heard(speaking)
    assert servers.due_for_probe() == [silent]  # and not the one that has nothing to do
    servers.probed(silent, None)
    assert servers.due_for_probe() == []
    clock.now += PROBED_AFTER_S
    assert servers.due_for_probe() == [silent, speaking]


@pytest.mark.parametrize(("count", "concurrency"), [(1, 16), (2, 16), (4, 16), (4, 1), (8, 3)])
def test_as_many_times_the_throughput_as_servers(clock, count: int, concurrency: int) -> None:
    """Every server takes a second of this clock for what it has; 960 passages wait."""
    servers, left, seconds = servers_of(count, concurrency, clock), 960, 0
    while left:
        in_flight = [taken(servers) for _ in range(min(left, servers.places))]
        for server in in_flight:
            servers.release(server, None)
        left -= len(in_flight)
        seconds += 1
    assert seconds == 960 / concurrency / count
