#!/usr/bin/env bash
# Starts the backend as the gateway does: run.sh --addr HOST:PORT, from any working directory, with stdin closed.
# It becomes Python itself (exec, same pid), so that the gateway's signals reach the process that serves.
set -euo pipefail

here="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="$here/venv/bin/python"

if [[ ! -x "$python" ]]; then
  echo "the backend is not installed: run $here/install.sh" >&2 # the gateway shows the last line of stderr to its user
  exit 1
fi

cd "$here" # `python -m` looks in the working directory first, which is anybody's
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" # for the processes that Python starts, wherever they stand
export QWEN_ASR_PARENT="$PPID"                       # whom to watch, even if it dies before Python is up
export PYTHONUNBUFFERED=1                            # a log line that sits in a buffer helps nobody after a SIGKILL

# A thread that waits for another spins, and when that one has lost its core to somebody, spins away what it needs. So it
# gives up, but not before the tenth of a millisecond that Python takes between two operations: a step of int8 decoding
# takes 25 ms alone with this many turns or with any number more, 28 with half of them and 52 with a tenth; beside one busy
# program, on two cores, 160 ms instead of 250.
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"

# oneDNN, and torch above it, keep the code and the scratch memory of the last 1024 shapes, each; every length of a passage
# is a dozen new ones, of half a megabyte each: 250 MiB after 32 lengths of sound, 370 after 100 of prompts. With 128 it
# stays at 110, and no time is lost.
export ONEDNN_PRIMITIVE_CACHE_CAPACITY="${ONEDNN_PRIMITIVE_CACHE_CAPACITY:-128}"
export LRU_CACHE_CAPACITY="${LRU_CACHE_CAPACITY:-128}"

# With one of these closed, the next socket that is opened would become it, and hear what a library writes to stderr.
true >&1 || exec >/dev/null
true >&2 || exec 2>/dev/null
exec "$python" -m backend "$@" </dev/null
