"""The package's own way on the same files, in a process of its own so that its memory is.

`qwen_asr.Qwen3ASRModel` as its README uses it: loaded once, asked one file at a time, everything at its defaults. One
thing is handed to it: the ids of the tokens that end an answer. The package has those of the released tokenizer as a
default argument of `generate` (151645 and 151643) and never reads the checkpoint's generation_config.json; a checkpoint
with another tokenizer, such as the demo's, would never end. With the released checkpoints both are the same ids.

On a CPU it computes in float32, on anything else on the device and in the dtype that the backend chooses.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backend.languages import NAMES, code_of_name
from devtools.eval.answers import (
    Answer,
    Job,
    Run,
    Word,
    answer_line,
    peak_bytes,
    read_answers,
    read_jobs,
    read_peak,
    write_jobs,
)

POLL_S = 0.2
LONGEST_S = 6 * 3600.0


def run(jobs: Sequence[Job], model: str, aligner: str) -> Run:
    """An answer to every job. Where the process ends early, the jobs it left are failures with its last words."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+", errors="replace") as log:
        asked, answered = Path(folder) / "jobs.jsonl", Path(folder) / "answers.jsonl"
        write_jobs(asked, jobs)
        answered.touch()
        command = [sys.executable, "-m", "devtools.eval.baseline", "--jobs", str(asked), "--answers", str(answered)]
        command += ["--model", model, "--aligner", aligner]
        root = Path(__file__).resolve().parents[2]  # `-m` looks for devtools there
        with subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as child:
            try:
                _watch(child, answered, len(jobs))
            finally:
                child.kill()  # does nothing where it has ended
        log.seek(0)
        last = [line.strip() for line in log if line.strip()][-1:] or [f"exit code {child.returncode}"]
        lines = answered.read_text(encoding="utf-8").splitlines()
    lost = Answer(failure=f"the package's process ended: {last[0][:300]}")
    answers = read_answers(lines)
    return Run({job.key: answers.get(job.key, lost) for job in jobs}, read_peak(lines))


def _watch(child: subprocess.Popen[bytes], answered: Path, total: int) -> None:
    """Waits for the child; on a terminal, shows how many answers there are."""
    with tqdm(desc="package", total=total, unit="file", leave=False, disable=None) as bar:
        while child.poll() is None:
            time.sleep(POLL_S)
            bar.update(answered.read_bytes().count(b'"key"') - bar.n)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="devtools.eval.baseline", description="The package's own way; used by `python -m devtools.eval`."
    )
    for name in ("jobs", "answers", "model", "aligner"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args(argv)
    package = loaded(args.model, args.aligner)
    with Path(args.answers).open("a", encoding="utf-8") as out:
        for job in read_jobs(Path(args.jobs)):
            out.write(answer_line(job.key, answer(package, job)))
            out.flush()
        out.write(json.dumps({"peak_bytes": peak_bytes("self")}) + "\n")
    return 0


def loaded(model: str, aligner: str) -> Any:
    """The package's model, with its aligner where `aligner` is a folder or hub id; no times without one."""
    import torch
    from qwen_asr import Qwen3ASRModel

    from backend.engine.ops import device
    from backend.options import LoadOptions

    placement = device.choose(LoadOptions(model=model))
    on_cpu = placement.device.type == "cpu"
    where = {"dtype": torch.float32 if on_cpu else placement.dtype, "device_map": str(placement.device)}
    package = Qwen3ASRModel.from_pretrained(
        model, forced_aligner=aligner or None, forced_aligner_kwargs=dict(where), **where
    )
    end_as_configured(package.model)
    return package


def end_as_configured(model: Any) -> None:
    """Has `generate` end at the checkpoint's own tokens instead of at the default argument's."""
    model.generate = functools.partial(model.generate, eos_token_id=model.generation_config.eos_token_id)


def answer(package: Any, job: Job) -> Answer:
    """Reading the file is within the time, as it is within the backend's."""
    from backend.audio.decoding.decode import decode

    began = time.monotonic()
    try:
        samples = decode(job.audio, max_seconds=LONGEST_S).samples
        (result,) = package.transcribe(
            audio=(samples, 16_000),
            language=NAMES[job.language] if job.language else None,
            return_time_stamps=package.forced_aligner is not None,
        )
    except Exception as error:  # noqa: BLE001 - the package raises whatever it likes, and one file must not end the run
        return Answer(took_s=time.monotonic() - began, failure=f"{type(error).__name__}: {error}")
    items = result.time_stamps or ()
    return Answer(
        text=result.text,
        language=code_of_name(result.language.split(",")[0]) or "",  # of several, the first it heard
        words=tuple(Word(item.text, item.start_time, item.end_time) for item in items),
        took_s=time.monotonic() - began,
    )


if __name__ == "__main__":
    sys.exit(main())
