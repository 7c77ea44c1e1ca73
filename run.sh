#!/usr/bin/env bash
# The start script that the gateway runs: run.sh --addr HOST:PORT, from any working directory, with stdin closed.
# run.sh --doctor [--json] [--model MODEL] [--aligner ALIGNER] says what the install and the machine can do (docs/doctor.md).
# It execs Python, which keeps the process id, so that the gateway's signals reach the server.
set -euo pipefail

here="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/venv/bin/python"

if [[ ! -x "$python" ]]; then
  echo "the backend is not installed: run $here/install.sh" >&2 # the gateway shows the last line of stderr to its user
  [[ " $* " != *" --doctor "* ]] || exit 2                  # the doctor's "does not work"
  exit 1
fi

cd "$here" # `python -m` imports from the working directory first, which could be any folder
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" # for child processes, whatever their working directory
export QWEN_ASR_PARENT="$PPID"                       # the parent to watch (process/parent_watch.py), even if it dies before Python is up
export PYTHONUNBUFFERED=1                            # a buffered log line would be lost at a SIGKILL

# OpenMP's threads spin while they wait; on a shared host that burns the core that the awaited thread needs. The limit is
# just over the tenth of a millisecond that Python takes between two operations. A decode step in int8 takes 25 ms alone
# with 20000 spins or more, 28 ms with 10000 and 52 ms with 2000; beside one busy program, on two cores, it takes 160 ms
# with the limit and 250 ms without.
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"

# oneDNN and torch each cache the code and the scratch memory of the last 1024 shapes. Every length of a passage brings a
# dozen new shapes of half a megabyte each: 250 MiB after 32 lengths of audio, 370 MiB after 100 lengths of prompts. With
# 128 shapes the caches stay at 110 MiB, and nothing gets slower.
export ONEDNN_PRIMITIVE_CACHE_CAPACITY="${ONEDNN_PRIMITIVE_CACHE_CAPACITY:-128}"
export LRU_CACHE_CAPACITY="${LRU_CACHE_CAPACITY:-128}"

# If stdout or stderr is closed, the next socket would get its descriptor, and with it what a library writes to stderr.
true >&1 || exec >/dev/null
true >&2 || exec 2>/dev/null
exec "$python" -m backend "$@" </dev/null
