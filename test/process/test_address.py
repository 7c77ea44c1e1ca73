from __future__ import annotations

import socket

import pytest

from backend.errors import CannotListen
from backend.process.address import listen_failure, parse, refuse_if_half_taken


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("127.0.0.1:50051", "127.0.0.1", 50051), ("0.0.0.0:0", "0.0.0.0", 0), ("localhost:1", "localhost", 1),
     ("[::1]:65535", "::1", 65535), ("my-host.lan:80", "my-host.lan", 80)],
)  # fmt: skip
def test_an_address_is_a_host_and_a_port(address: str, host: str, port: int) -> None:
    assert parse(address) == (host, port)


@pytest.mark.parametrize(
    "address",
    ["", "nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:80x", "127.0.0.1:٣",
     "::1:0", ":0", "*:0", "unix:/tmp/socket", "127.0.0.1:0 x", "127.0.0.1:0\n", "http://127.0.0.1:80", "x" * 5000],
)  # fmt: skip
def test_an_address_that_grpc_would_guess_is_refused(address: str) -> None:
    with pytest.raises(CannotListen, match="HOST:PORT") as caught:
        parse(address)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_the_cause_of_a_failed_listen_is_found_by_trying() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "taken by another process" in str(listen_failure(f"127.0.0.1:{taken.getsockname()[1]}"))
    assert "not this machine's" in str(listen_failure("192.0.2.1:50051"))  # kept for documentation, nobody's
    assert "not known" in str(listen_failure("no..such:50051"))


def test_an_outgoing_connection_takes_a_port_too_and_the_cause_says_so() -> None:
    """The ports that a worker gives its backends lie among those of outgoing connections."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as connection:
        cause = str(listen_failure(f"127.0.0.1:{connection.getsockname()[1]}"))
    assert "taken by another process" in cause
    assert "outgoing connection" in cause
    assert "choose a port outside" in cause


def test_a_name_is_taken_if_one_of_its_addresses_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
        for found in (addresses, addresses[::-1]):
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: found)
            with pytest.raises(CannotListen, match="taken by another process"):
                refuse_if_half_taken(f"my-host:{port}")
    nobodys = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [addresses[0], nobodys])
    refuse_if_half_taken(f"my-host:{port}")  # a family that the machine lacks does not count


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_localhost_is_taken_if_either_loopback_is(family: int, host: str) -> None:
    try:
        taken = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with taken, pytest.raises(CannotListen, match="taken by another process"):
        refuse_if_half_taken(f"localhost:{taken.getsockname()[1]}")
