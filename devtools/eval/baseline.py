"""Transcribes files with the qwen-asr package, in a process of its own so that its peak of memory is its own.

`qwen_asr.Qwen3ASRModel` as its README uses it: loaded once, called for one file at a time, everything at its defaults,
in float32 on a CPU, and on any other device in the dtype that the backend chooses. One thing is added: the ids of the
tokens that end an answer. The package has the released tokenizer's as default argument of `generate` (151645, 151643)
and never reads generation_config.json, so a checkpoint with another tokenizer, such as the demo's, would never end.

The process reads pickled jobs from stdin and writes their pickled hypotheses to stdout, at the end its peak of memory.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backend.audio.decoding.decode import decode
from backend.languages import NAMES, code_of_name
from devtools.eval.hypotheses import Hypothesis, Job, Run, Word
from devtools.procfs import peak_resident_bytes

ROOT = Path(__file__).resolve().parents[2]  # `-m` looks for devtools there
COMMAND = (sys.executable, "-m", "devtools.eval.baseline")
LONGEST_S = 6 * 3600.0


def run(jobs: Sequence[Job], model: str, aligner: str, command: Sequence[str] = COMMAND) -> Run:
    """A hypothesis for every job. Where the process ends early, its last line is the failure of the jobs left."""
    found: dict[str, Hypothesis] = {}
    peak_bytes: int | None = None
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen([*command, model, aligner], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=log) as child,
    ):
        assert child.stdin
        assert child.stdout
        try:
            for job in tqdm(jobs, desc="package", unit="file", leave=False, disable=None):  # None: on a terminal only
                os.write(child.stdin.fileno(), pickle.dumps(job))
                found[job.key] = pickle.load(child.stdout)
            child.stdin.close()
            peak_bytes = pickle.load(child.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            code = child.wait()
            log.seek(0)
            last = [line.strip() for line in log if line.strip()][-1:] or [f"exit code {code}"]
            lost = Hypothesis(failure=f"the package's process ended: {last[0][:300]}")
            found = {job.key: lost for job in jobs} | found
        finally:
            child.kill()  # does nothing where it has ended
    return Run(found, peak_bytes)


def main(model: str, aligner: str) -> None:
    with os.fdopen(os.dup(1), "wb", buffering=0) as results:
        os.dup2(2, 1)  # what the package prints goes to the log
        package = load(model, aligner)
        with contextlib.suppress(EOFError):  # no more jobs
            while True:
                job = pickle.load(sys.stdin.buffer)
                results.write(pickle.dumps(transcribe(package, job)))
        results.write(pickle.dumps(peak_resident_bytes(os.getpid()) or None))


def load(model: str, aligner: str) -> Any:
    """The package's model, with an aligner where `aligner` is a folder or hub id; without one it gives no times."""
    import torch
    from qwen_asr import Qwen3ASRModel

    from backend.engine.ops import device
    from backend.options import LoadOptions

    placement = device.choose(LoadOptions(model=model))
    dtype = torch.float32 if placement.device.type == "cpu" else placement.dtype
    where = {"dtype": dtype, "device_map": str(placement.device)}
    package = Qwen3ASRModel.from_pretrained(
        model, forced_aligner=aligner or None, forced_aligner_kwargs=dict(where), **where
    )
    end_as_configured(package.model)
    return package


def end_as_configured(model: Any) -> None:
    """Makes `generate` end at the checkpoint's own tokens instead of at its default argument's."""
    model.generate = functools.partial(model.generate, eos_token_id=model.generation_config.eos_token_id)


def transcribe(package: Any, job: Job) -> Hypothesis:
    """Decoding the file counts as time, as it does for the backend."""
    began = time.monotonic()
    try:
        samples = decode(job.audio, max_seconds=LONGEST_S).samples
        (result,) = package.transcribe(
            audio=(samples, 16_000),
            language=NAMES[job.language] if job.language else None,
            return_time_stamps=package.forced_aligner is not None,
        )
    except Exception as error:  # noqa: BLE001 - the package raises anything, and one file must not end the run
        return Hypothesis(took_s=time.monotonic() - began, failure=f"{type(error).__name__}: {error}")
    return Hypothesis(
        text=result.text,
        language=code_of_name(result.language.split(",")[0]) or "",  # of several, the first that it detected
        words=tuple(Word(item.text, item.start_time, item.end_time) for item in result.time_stamps or ()),
        took_s=time.monotonic() - began,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
