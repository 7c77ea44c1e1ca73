"""Sound: the usual containers decoded in the decoder processes, and voice activity detection on speech and on noise.

`python -m backend.doctor.sound_check` tries it and prints what it found, in a process of its own: libraries of C.
sounds/ holds one second of 440 Hz in each format, encoded at 16 kbit/s.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from backend.doctor.child_process import Report
from backend.doctor.findings import REINSTALL, Finding, fail, ok
from backend.doctor.places import DEMO_AUDIO, SOUNDS
from backend.options.load_options import LoadOptions

FORMATS = {"WAV": DEMO_AUDIO, "MP3": SOUNDS / "tone.mp3", "M4A": SOUNDS / "tone.m4a", "OGG": SOUNDS / "tone.ogg"}
_MAX_SECONDS = 60.0
_TONE_S, _TOLERANCE_S, _TONE_HZ, _TOLERANCE_HZ = 1.0, 0.2, 440.0, 5.0
_NOISE_S, _NOISE_LEVEL = 5, 0.1
_MIN_SPEECH_SHARE, _MAX_NOISE_SHARE = 0.5, 0.1  # of the recording; the demo is speech for nine tenths of its time


def judge(report: Report) -> list[Finding]:
    """`report`: of `main` below."""
    errors = report.facts.get("decoded")
    if errors is None:
        return [fail("decoding", f"failed: {report.failure}", REINSTALL)]
    found = []
    for name in FORMATS:
        error = errors.get(name, report.failure)
        found.append(fail(name, error, REINSTALL) if error else ok(name, "decoded in a process of its own"))
    return [*found, _voices(report)]


def _voices(report: Report) -> Finding:
    shares = report.facts.get("speech")
    if shares is None:
        return fail("voice detection", f"failed: {report.failure}", f"{REINSTALL}; until then vad:off")
    value = f"hears {shares['demo']:.0%} of the demo as speech and {shares['noise']:.0%} of noise"
    if shares["demo"] < _MIN_SPEECH_SHARE or shares["noise"] > _MAX_NOISE_SHARE:
        return fail("voice detection", value, f"{REINSTALL}; until then vad:off")
    return ok("voice detection", value)


async def main() -> None:
    # Here, because the doctor's own process must start where these libraries do not.
    import numpy as np

    from backend.audio.decoding.pool import DecoderPool
    from backend.audio.vad import SpeechRules, detect
    from backend.audio.waveform import SAMPLE_RATE, Samples
    from backend.errors import AsrError

    pool, recordings, errors = DecoderPool(), {}, {}
    for name, path in FORMATS.items():
        try:
            recordings[name] = (await pool.decode(str(path), max_seconds=_MAX_SECONDS)).samples
            errors[name] = "" if path == DEMO_AUDIO else _tone_error(recordings[name])
        except AsrError as error:
            errors[name] = str(error)
    pool.close()
    _say("decoded", errors)

    rules = SpeechRules.of(LoadOptions(model=""))

    async def share(samples: Samples) -> float:
        spans = (await detect(samples, rules)).spans
        return sum(end - begin for begin, end in spans) / samples.size

    noise = np.random.default_rng(1).normal(0, _NOISE_LEVEL, _NOISE_S * SAMPLE_RATE).astype(np.float32)
    demo = recordings.get("WAV", noise)
    _say("speech", {"demo": await share(demo), "noise": await share(noise)})


def _tone_error(samples: Any) -> str:
    """What is wrong with a decoded tone; "" if nothing is."""
    import numpy as np

    from backend.audio.waveform import SAMPLE_RATE

    seconds = samples.size / SAMPLE_RATE
    loudest = float(np.abs(np.fft.rfft(samples)).argmax() / seconds)
    if abs(seconds - _TONE_S) > _TOLERANCE_S or abs(loudest - _TONE_HZ) > _TOLERANCE_HZ:
        return f"decoded to {seconds:.2f} s of {loudest:.0f} Hz instead of {_TONE_S:g} s of {_TONE_HZ:.0f} Hz"
    return ""


def _say(name: str, facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({name: facts}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
