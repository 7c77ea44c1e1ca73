"""What a client sends is in no status and in no log, whichever way its request fails."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import soundfile

from backend.process.log import LogLines

SECRET = "sEcReT"  # in the path, the prompt and the text of every request here
NASTY = (
    f"{SECRET} connection refused", f"{SECRET}\nERROR root: forged", f"{SECRET} model not loaded", f"{SECRET}%s%n{{0}}",
    f"{SECRET}\x1b[2J\r", f"{SECRET} no such host: 127.0.0.1", f"{SECRET} \u202eлист 名 🎧",
)  # fmt: skip


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the process would write to stderr."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(LogLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


def raising(make: Callable[[str], Exception]) -> Callable[[object], str]:
    def answer(utterance) -> str:
        raise make(utterance.prompt)

    return answer


FAULTS: dict[str, Callable[[str], Exception]] = {
    "KeyError": KeyError,
    "ValueError": lambda said: ValueError(f"cannot encode {said!r}"),
    "OSError": lambda said: OSError(24, "Too many open files", said),
    "UnicodeEncodeError": lambda said: UnicodeEncodeError("ascii", said, 0, 1, said),
    "StopIteration": StopIteration,
    "LibsndfileError": lambda said: soundfile.LibsndfileError(1, said),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_model_repeats_no_client_text(service, loader, wav, log, fault: str) -> None:
    loader.recognizer.answer = raising(FAULTS[fault])
    await service.load()
    for nasty in NASTY:
        refusal = await service.refusal(wav(), prompt=nasty)
        assert refusal.code() == grpc.StatusCode.INTERNAL
        assert SECRET not in f"{refusal.details()}{refusal.trailing_metadata()}"
    assert "the model failed" in log.getvalue()
    assert SECRET not in log.getvalue()
    assert "forged" not in log.getvalue()


async def test_no_failure_repeats_the_file_the_prompt_or_the_language(
    service, loader, wav, log, tmp_path: Path
) -> None:
    await service.load(Options=["forced_aligner:x"])
    for number, nasty in enumerate(NASTY):
        folder = tmp_path / str(number)
        folder.mkdir()
        text, empty, link, locked = (folder / f"{nasty.replace('/', '')}{kind}" for kind in ("t", "e", "l", "x"))
        text.write_text(f"{nasty} RIFF....WAVE")
        empty.touch()
        link.symlink_to(wav())
        cut = folder / f"{nasty}.flac"
        cut.write_bytes(b"fLaC\x00\x00\x00\x22" + bytes(60))
        for path in (text, empty, link, locked, cut, folder, f"data:{nasty}", f"http://{nasty}/", nasty + "/" * 300):
            refusal = await service.refusal(str(path), prompt=nasty)
            assert refusal.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert SECRET not in refusal.details()
        for fields in ({"language": nasty}, {"prompt": nasty * 1000}, {"timestamp_granularities": [nasty] * 101}):
            refusal = await service.refusal(wav(), **fields)
            assert refusal.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert SECRET not in refusal.details()
    assert SECRET not in log.getvalue()


async def test_a_file_that_cannot_be_opened_for_want_of_descriptors_is_not_named(service, log, tmp_path: Path) -> None:
    """The one failure of decoding that is ours: it is logged with its trace."""
    import resource

    await service.load()
    path = tmp_path / f"{SECRET}.wav"
    path.touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))  # for what is opened from now on
    try:
        refusal = await service.refusal(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refusal.code() == grpc.StatusCode.INTERNAL
    assert "Too many open files" in log.getvalue()
    assert SECRET not in log.getvalue()


async def test_the_transcript_is_not_logged(service, loader, wav, log) -> None:
    loader.recognizer.answer = lambda _: f"{SECRET} was said."
    loader.aligner.fault = ValueError(SECRET)
    await service.load(Options=["forced_aligner:x"])
    reply = await service.transcribe(wav(), prompt=SECRET, timestamp_granularities=["word"])
    assert SECRET in reply.text
    assert "ValueError" in log.getvalue()
    assert SECRET not in log.getvalue()
