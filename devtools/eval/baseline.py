"""Transcribes files with the qwen-asr package, served by devtools/bench/baseline_server in a process of its own.

The package is at its defaults but for one thing: the ids of the tokens that end an answer. The package has the released
tokenizer's as default argument of `generate` (151645, 151643) and never reads generation_config.json, so a checkpoint
with another tokenizer, such as the demo's, would never end.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

from backend.wire.backend_pb2 import ModelOptions
from devtools.eval.backend_client import transcribe_all
from devtools.eval.hypotheses import Hypothesis, Job, Run
from devtools.server_process import ServerFailed, ServerProcess

COMMAND = (sys.executable, "-m", "devtools.bench.baseline_server")
IMPORT_TIMEOUT_S = 600.0  # the server imports the package before it opens its port


def run(jobs: Sequence[Job], options: ModelOptions, command: Sequence[str] = COMMAND) -> Run:
    """A hypothesis for every job. A package that does not load is the failure of all of them. No aligner: no times."""
    has_aligner = any(option.startswith("forced_aligner:") for option in options.Options)
    try:
        with ServerProcess(command, bind_timeout_s=IMPORT_TIMEOUT_S) as server:
            return transcribe_all("package", server, jobs, options, with_words=has_aligner)
    except ServerFailed as failure:
        return Run({job.key: Hypothesis(failure=str(failure)) for job in jobs}, None)


def end_as_configured(model: Any) -> None:
    """Makes `generate` end at the checkpoint's own tokens instead of at its default argument's."""
    model.generate = functools.partial(model.generate, eos_token_id=model.generation_config.eos_token_id)
