"""Servers behind https: their certificate is checked, and a connection can be closed in the middle."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from decoder_processes import until

from backend.wire import backend_pb2 as pb
from devtools.vllm_server import tagged

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=127.0.0.1"
    made = [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(made, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


async def test_a_certificate_that_is_not_trusted_refuses_the_load(vllm, backend, certificate) -> None:
    with pytest.raises(AssertionError, match="certificate that is not trusted"):
        await backend([vllm(certificate=certificate)])


@pytest.mark.parametrize("fault", ["", "hang", "hang in the middle"])
async def test_answers_come_and_connections_close(vllm, backend, wav, certificate, monkeypatch, fault: str) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    server = vllm(certificate=certificate, answer=lambda asked: tagged("Good morning, and a good day.", asked))
    service = await backend([server])
    server.fault = fault
    call = service.stub.AudioTranscription(pb.TranscriptRequest(dst=str(wav())))
    if not fault:
        assert (await call).text == "Good morning, and a good day."
        return
    await until(lambda: server.in_flight == 1)
    call.cancel()
    await until(lambda: server.in_flight == 0)
