#!/usr/bin/env bash
# The start script that the gateway runs: run.sh --addr HOST:PORT, from any working directory, with stdin closed.
# run.sh --doctor [--json] [--model MODEL] [--aligner ALIGNER] [--options NAME:VALUE] says what the install and the machine can do (docs/doctor.md).
# It execs Python, which keeps the process id, so that the gateway's signals reach the server.
set -euo pipefail
unset CDPATH # `cd` would print where it goes

# What a gateway sets for other programs does not change this one: other folders to import from, warnings as errors, an
# interpreter without docstrings or with another library. Kept is what measures or where bytecode goes.
for name in ${!PYTHON*}; do
  case "$name" in
    PYTHONDONTWRITEBYTECODE | PYTHONPYCACHEPREFIX | PYTHONFAULTHANDLER | PYTHONPROFILEIMPORTTIME | PYTHONTRACEMALLOC) ;;
    PYTHON_GRPC_MAX_WORKERS) ;; # the gateway's, not Python's
    *) unset "$name" ;;
  esac
done
unset GRPC_TRACE           # writes every caller's metadata, the token among them, to the log
export PYTHONUTF8=1        # names of files are UTF-8, whatever the locale is
export PYTHONNOUSERSITE=1  # ./venv is whole: no other package than its own

here="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$here/venv"
python="$venv/bin/python"

arguments=" $* "
die() { # the gateway shows the last line of stderr to its user
  echo "$*" >&2
  [[ "$arguments" != *" --doctor "* ]] || exit 2 # the doctor's "does not work"
  exit 1
}

# The first folder on the way to a path, or what lies there, that this user cannot enter, read or run. Links are followed.
barred() {
  local path="$1" up first="" target
  for _ in 1 2 3 4 5 6 7 8; do
    up="$path"
    while up="${up%/*}"; [[ -n "$up" ]]; do
      [[ ! -d "$up" || -x "$up" ]] || first="$up"
    done
    [[ -z "$first" && -L "$path" ]] || break
    target="$(readlink "$path")"
    [[ "$target" == /* ]] || target="${path%/*}/$target"
    path="$target"
  done
  [[ -n "$first" || ! -e "$path" || (-r "$path" && -x "$path") ]] || first="$path"
  echo "$first"
}

die_unreadable() {
  local user
  user="$(id -un 2>/dev/null)" || user="$(id -u)"
  die "$1 cannot be read or run by the user $user: allow it (chmod -R a+rX $here), or install as that user"
}

die_if_barred() { # die_if_barred PATH...
  local path first
  for path in "$@"; do
    first="$(barred "$path")"
    [[ -z "$first" ]] || die_unreadable "$first"
  done
}

die_if_unreadable() { # of files, which nobody runs
  local path
  for path in "$@"; do
    [[ ! -e "$path" || -r "$path" ]] || die_unreadable "$path"
  done
}

die_if_barred "$here/backend" "$venv/bin/python" "$here/python/bin/python3"
die_if_barred "$here"/backend/*/ "$here"/backend/*/*/ # with the slash: folders
die_if_unreadable "$here"/backend/*.py "$here"/backend/*/*.py "$here"/backend/*/*/*.py

# `packages`, a list with one folder, and `version`, the Python that they were installed for: python3.12.
packages=("$venv"/lib/python3.*/site-packages)
version="$(basename "$(dirname "${packages[0]}")")"

# An interpreter in ./python comes before the one that ./venv names, which may have stayed on another machine. It is
# started by itself, with the packages of ./venv: so nothing has to be written at a start, wherever the folder was moved.
if [[ -d "$here/python/bin" && -d "${packages[0]}" ]]; then
  python="$here/python/bin/$version"
  [[ -x "$python" ]] || die "the interpreter in $here/python does not fit: ./venv was installed for $version"
  PYTHONPATH="${packages[0]}"
  if compgen -G "$here/python/lib/libpython3*" >/dev/null; then # a copy may look for its library where it came from
    export LD_LIBRARY_PATH="$here/python/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  fi
elif [[ -L "$python" && ! -x "$python" ]]; then
  die "$python leads to an interpreter that is not on this machine: put a $version into $here/python, or run $here/install.sh"
fi
[[ -x "$python" ]] || die "the backend is not installed: run $here/install.sh"
die_if_barred "${packages[0]}" "${packages[0]}"/*/
[[ -r "$here/backend/__main__.py" ]] || die "the backend is not wholly here: $here/backend/__main__.py is missing"

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

# oneDNN caches the code, and torch the scratch memory, of the last 1024 shapes. Every length of a passage brings a dozen
# new shapes of half a megabyte each. What a model uses again within a request is a few dozen: with 32 and 4 shapes
# the demo's process stays at 330 MiB instead of 440 (128 shapes each) and at the same speed; with 16 shapes of
# oneDNN's it is a tenth slower.
export ONEDNN_PRIMITIVE_CACHE_CAPACITY="${ONEDNN_PRIMITIVE_CACHE_CAPACITY:-32}"
export LRU_CACHE_CAPACITY="${LRU_CACHE_CAPACITY:-4}"

# glibc gives threads that allocate at the same time arenas of their own, 8 for each processor, and what is left in them
# between blocks that stay is not given back. Each load may come upon another one: after twenty releases of an idle
# model 137 MiB more were resident than after the first; with two arenas, 9 MiB more after twelve.
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-2}"

# If stdout or stderr is closed, the next socket would get its descriptor, and with it what a library writes to stderr.
true >&1 || exec >/dev/null
true >&2 || exec 2>/dev/null
exec "$python" -m backend "$@" </dev/null
