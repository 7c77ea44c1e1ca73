#!/usr/bin/env bash
# Makes ./venv with everything the backend needs, and the protobuf stubs. Safe to run again: quick when nothing changed.
#
#   BUILD_TYPE   empty or cpu: CPU | cublas: NVIDIA CUDA | hipblas: AMD ROCm. Not set at all: what ./venv already has, else CPU.
#   CUDA         12 or 13: which CUDA a cublas build is for (default: CUDA_MAJOR_VERSION, else what nvidia-smi's answer needs).
#   PYTHON       the interpreter to build ./venv with (default: python3); 3.11 to 3.13.
#   DEV=1        adds what `make test` needs.
#   TORCH_INDEX  another index to take torch from first (default: PyTorch's own, by BUILD_TYPE).
#
# No Debian package is needed at run time: the wheels bring libsndfile, libsoxr and ffmpeg's libraries along. Where there
# is a C compiler (Debian's gcc and libc6-dev), CPUs compute a tenth to a quarter faster.
set -euo pipefail

here="$(cd -P "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
cd "$here" # requirement files, proto paths and python -m are relative to the repository
venv="$here/venv"

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

kind_of_build() { # the kind that BUILD_TYPE asks for; a venv keeps its kind while nobody asks
  local kept=""
  if [[ -z "${BUILD_TYPE+set}" && -f "$venv/.kind" ]]; then
    kept="$(cat "$venv/.kind")"
  fi
  case "$kept,${BUILD_TYPE-}" in
    cuda,*) cuda_kind ;; # the stamp of 0.2.0 and earlier
    cuda*,*) if [[ -n "${CUDA:-}" ]]; then cuda_kind; else echo "$kept"; fi ;;
    ,cublas) cuda_kind ;;
    ,hipblas) echo rocm ;;
    cpu,* | , | ,cpu)
      [[ -z "${CUDA:-}" ]] || say "CUDA=$CUDA has no effect: this is an install for CPUs; add BUILD_TYPE=cublas for a GPU"
      echo cpu
      ;;
    ?*,*) echo "$kept" ;;
    *) die "BUILD_TYPE=$BUILD_TYPE is not known; it may be empty, cpu, cublas or hipblas" ;;
  esac
}

# The two CUDA builds of torch 2.13.0, and what they run on. CUDA 12.6: drivers from 525 on, Maxwell to Hopper. CUDA 13.0:
# drivers from 580 on, Turing and later.
cuda_kind() { # cuda12 or cuda13
  local forced="${CUDA:-${CUDA_MAJOR_VERSION:-}}" cards
  case "$forced" in
    12 | 13) echo "cuda$forced" ;;
    "")
      cards="$(query_cards)"
      if [[ -z "$cards" ]]; then
        say "nvidia-smi names no card here; taking the build for CUDA 13, which needs driver 580 or later (CUDA=12 for older ones)"
        echo cuda13
      else
        cuda_kind_for "$cards"
      fi
      ;;
    *) die "CUDA=$forced is not known; it may be 12 or 13" ;;
  esac
}

query_cards() { # a line "driver's major version, compute capability × 10" for each card; the capability is 0 if it is not known
  local fields answer
  for fields in driver_version,compute_cap driver_version; do # an old nvidia-smi does not know compute_cap
    if answer="$(timeout 30 nvidia-smi --query-gpu="$fields" --format=csv,noheader 2>/dev/null)"; then
      sed -nE -e 's/^ *([0-9]+)(\.[0-9.]+)?, *([0-9]+)\.([0-9]).*$/\1 \3\4/p; t' -e 's/^ *([0-9]+)\.[0-9.]+ *(,.*)?$/\1 0/p' <<<"$answer"
      return
    fi
  done
}

cuda_kind_for() { # the build that computes on these cards, the lines of query_cards
  local driver="${1%% *}" capability old=0 blackwell=0 others=0 # one driver serves all cards
  while read -r _ capability; do
    if ((capability >= 100)); then
      blackwell=1
    elif ((capability && capability < 75)); then
      old=1
    else
      others=1
    fi
  done <<<"$1"
  ((driver >= 525)) || say "driver $driver is older than 525, the first for CUDA 12: update it, or the GPU will not be used"
  if ((driver < 580)); then
    if ((blackwell)); then
      ((old || others)) || die "driver $driver is too old for a Blackwell card; it needs driver 580 or later, because the build" \
        "for CUDA 12 has no Blackwell (CUDA=13 installs all the same)"
      say "driver $driver is too old for the Blackwell card, which needs driver 580 or later; the other cards will compute"
    fi
    echo cuda12
  elif ((old && blackwell)); then
    say "no build computes on all cards here; taking the one for CUDA 13, without those older than Turing (CUDA=12: without Blackwell)"
    echo cuda13
  elif ((old)); then
    echo cuda12
  else
    echo cuda13
  fi
}

torch_index() { # the builds of torch 2.13.0 that PyTorch publishes
  case "$1" in
    cpu) echo "https://download.pytorch.org/whl/cpu" ;;
    cuda12) echo "https://download.pytorch.org/whl/cu126" ;;
    cuda13) echo "https://download.pytorch.org/whl/cu130" ;;
    rocm) echo "https://download.pytorch.org/whl/rocm7.2" ;;
  esac
}

requirements_of() { # the file with torch's pin; one serves both CUDA builds, which have the same version
  case "$1" in
    cuda*) echo requirements-cuda.txt ;;
    *) echo "requirements-$1.txt" ;;
  esac
}

fingerprint() { # of the contents, so that a checkout that only touches files installs nothing
  "$venv/bin/python" -c '
import hashlib, pathlib, sys
digest = hashlib.sha256(sys.version.encode())
for name in sys.argv[1:]:
    digest.update(name.encode() + b"\0" + pathlib.Path(name).read_bytes())
print(digest.hexdigest())' "$@"
}

is_stamped() { [[ -f "$venv/.$1" && "$(cat "$venv/.$1")" == "$2" ]]; }

make_venv() {
  local kind="$1" python="${PYTHON:-python3}"
  if is_stamped kind cuda && [[ "$kind" == cuda13 ]]; then
    echo cuda13 >"$venv/.kind" # until 0.2.0 every CUDA install was for CUDA 13, and its stamp did not say so
  fi
  if [[ -x "$venv/bin/python" && "$(cat "$venv/.kind" 2>/dev/null)" == "$kind" ]] && "$venv/bin/python" -c '' 2>/dev/null; then
    # PYTHON names the interpreter of a new venv; an existing one is made anew only when it is another Python
    [[ -z "${PYTHON:-}" ]] && return
    [[ "$("$PYTHON" -c 'import sys; print(sys.version)')" == "$("$venv/bin/python" -c 'import sys; print(sys.version)')" ]] && return
  fi
  command -v "$python" >/dev/null || die "no $python here; install Python 3.11 to 3.13, or name one with PYTHON="
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
    die "$("$python" --version) does not fit; Python 3.11 to 3.13 is needed, name one with PYTHON="
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python cannot make a venv; on Debian and Ubuntu: apt-get install python3-venv"
  say "making ./venv for $kind with $("$python" --version)"
  "$python" -m venv --clear "$venv"
  echo "$kind" >"$venv/.kind"
}

pip_install() { "$venv/bin/python" -m pip install --disable-pip-version-check --quiet "$@"; }

install_torch() {
  local kind="$1" index wanted found
  index="${TORCH_INDEX:-$(torch_index "$kind")}"
  say "torch for $kind from $index"
  # One quick try. It takes torch's own dependencies from there too: those of the ROCm build are nowhere else.
  if ! pip_install --timeout 10 --retries 0 --index-url "$index" -r "$(requirements_of "$kind")"; then
    say "that index is out of reach or has no such torch; taking torch from where pip is configured to look"
    pip_install -r "$(requirements_of "$kind")"
  fi
  # Another source may hold another build under the same version: a CPU build must not pass for a GPU build, nor CUDA 13
  # for CUDA 12.
  wanted="${kind/cuda/cuda }"
  found="$("$venv/bin/python" -W ignore -c 'import torch; v = torch.version
print("rocm" if v.hip else f"cuda {v.cuda}" if v.cuda else "cpu")')"
  if [[ "$kind" != cpu && "$found" != "$wanted" && "$found" != "$wanted".* ]]; then
    die "pip found a torch built for $found, not for $wanted; name an index that has it with TORCH_INDEX="
  fi
}

write_stubs() {
  "$venv/bin/python" -m grpc_tools.protoc -Ibackend/wire=proto --python_out=. --pyi_out=. --grpc_python_out=. proto/backend.proto
  "$venv/bin/python" -c 'import backend.wire.backend_pb2_grpc' # stubs and libraries that do not fit each other fail here
}

csrc=backend/engine/ops/csrc

compile_kernels() { # 1 where that cannot be done; the backend then computes the same by torch
  if bash "$csrc/compile.sh" "$venv/bin/python" "$csrc" "$csrc/libkernels.so" &&
    "$venv/bin/python" -c 'import sys; from backend.engine.ops import native; sys.exit(native.library is None)'; then
    return 0
  fi
  rm -f "$csrc/libkernels.so"
  say "going on without the C kernels, which make a CPU a tenth to a quarter faster;" \
    "they need gcc 9 or later and libc6-dev (apt-get install gcc libc6-dev), and a torch with GNU OpenMP"
  return 1
}

main() {
  local kind requirements runtime dev
  kind="$(kind_of_build)"
  requirements="$(requirements_of "$kind")"
  make_venv "$kind"

  runtime="$(fingerprint install.sh requirements.txt requirements-no-deps.txt "$requirements")"
  if ! is_stamped runtime "$runtime"; then
    rm -f "$venv/.runtime" "$venv/.dev"
    install_torch "$kind"
    say "the rest, from requirements.txt"
    pip_install -r "$requirements" -r requirements.txt
    pip_install --no-deps -r requirements-no-deps.txt
    echo "$runtime" >"$venv/.runtime"
  fi

  if [[ "${DEV:-}" == 1 ]]; then
    dev="$(fingerprint requirements.txt requirements-dev.txt)"
    if ! is_stamped dev "$dev"; then
      say "the tools for tests, from requirements-dev.txt"
      pip_install -r "$requirements" -r requirements.txt -r requirements-dev.txt
      echo "$dev" >"$venv/.dev"
    fi
  fi

  local wire
  wire="$(fingerprint requirements.txt proto/backend.proto)"
  if ! is_stamped wire "$wire" || [[ ! -f backend/wire/backend_pb2_grpc.py || ! -f backend/wire/backend_pb2.py ]]; then
    write_stubs
    echo "$wire" >"$venv/.wire"
  fi

  local kernels cc
  read -ra cc <<<"${CC:-cc}" # a compiler that fails is tried again when it is another, or has other headers
  kernels="$(fingerprint install.sh "$requirements" "$csrc"/*.{c,h,sh}) $(
    { "${cc[@]}" --version && echo '#include <math.h>' | "${cc[@]}" -E - | cksum; } 2>/dev/null || true
  )"
  if ! is_stamped kernels "$kernels, failed" && ! { is_stamped kernels "$kernels" && [[ -f "$csrc/libkernels.so" ]]; }; then
    if compile_kernels; then
      echo "$kernels" >"$venv/.kernels"
    else
      echo "$kernels, failed" >"$venv/.kernels"
    fi
  fi
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then # a test sources this file for its functions
  main
fi
