"""QWEN_ASR_METRICS: which addresses the listener accepts, and what it says of others."""

from __future__ import annotations

import socket

import pytest

from backend.errors import CannotListen, MetricsAddressRefused
from backend.server import start
from backend.wire.metrics_listener import address_of


async def test_without_an_address_there_is_no_listener(service) -> None:
    assert service.serving.listener is None


async def test_the_error_of_a_port_in_use_names_the_setting(loader, decoder_pool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"127\.0\.0\.1:{port} for QWEN_ASR_METRICS: .* taken"):
            await start("127.0.0.1:0", loader, decoder_pool, metrics=str(port))


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [("9109", "127.0.0.1", 9109), ("0", "127.0.0.1", 0), (":9109", "127.0.0.1", 9109),
     ("127.0.0.1:9109", "127.0.0.1", 9109), ("localhost:1", "localhost", 1), ("[::1]:65535", "::1", 65535)],
)  # fmt: skip
def test_an_address_is_a_port_or_a_loopback_address(value: str, host: str, port: int) -> None:
    assert address_of(value) == (host, port)


@pytest.mark.parametrize(
    "value", ["0.0.0.0:9109", "[::]:9109", "10.0.0.1:1", "example.org:1", "yes", "127.0.0.1", "1:", "65536", "-1", "٣"]
)
def test_any_other_address_is_refused(value: str) -> None:
    with pytest.raises(MetricsAddressRefused, match="QWEN_ASR_METRICS"):
        address_of(value)
