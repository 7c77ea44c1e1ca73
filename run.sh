#!/usr/bin/env bash
# The start script that the gateway runs: run.sh --addr HOST:PORT, from any working directory, with stdin closed.
# run.sh --doctor [--json] [--model MODEL] [--aligner ALIGNER] says what the install and the machine can do (docs/doctor.md).
# It execs Python, which keeps the process id, so that the gateway's signals reach the server.
set -euo pipefail

here="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$here/venv"
python="$venv/bin/python"

arguments=" $* "
die() { # the gateway shows the last line of stderr to its user
  echo "$*" >&2
  [[ "$arguments" != *" --doctor "* ]] || exit 2 # the doctor's "does not work"
  exit 1
}

# `packages`, a list with one folder, and `version`, the Python that they were installed for: python3.12.
packages=("$venv"/lib/python3.*/site-packages)
version="$(basename "$(dirname "${packages[0]}")")"

# An interpreter in ./python comes before the one that ./venv names, which may have stayed on another machine. It is
# started by itself, with the packages of ./venv: so nothing has to be written at a start, wherever the folder was moved.
if [[ -d "$here/python/bin" && -d "${packages[0]}" ]]; then
  python="$here/python/bin/$version"
  [[ -x "$python" ]] || die "the interpreter in $here/python does not fit: ./venv was installed for $version"
  PYTHONPATH="${packages[0]}${PYTHONPATH:+:$PYTHONPATH}"
  export PYTHONNOUSERSITE=1 # ./venv is whole: no other package than its own
  if compgen -G "$here/python/lib/libpython3*" >/dev/null; then # a copy may look for its library where it came from
    export LD_LIBRARY_PATH="$here/python/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  fi
elif [[ -L "$python" && ! -x "$python" ]]; then
  die "$python leads to an interpreter that is not on this machine: put a $version into $here/python, or run $here/install.sh"
fi
[[ -x "$python" ]] || die "the backend is not installed: run $here/install.sh"

unset PYTHONHOME # it would name another library than the interpreter's own
if [[ -d "$here/lib" ]]; then # libraries of a GPU that were packed along
  export LD_LIBRARY_PATH="$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
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
