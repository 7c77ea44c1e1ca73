#!/usr/bin/env bash
# Makes ./venv with everything the backend needs, and the protobuf stubs. Safe to run again: quick when nothing changed.
#
#   BUILD_TYPE   empty or cpu: CPU | cublas: NVIDIA CUDA | hipblas: AMD ROCm | intel: Intel XPU | l4t: NVIDIA Jetson |
#                mps or metal: Apple. Not set at all: what ./venv already has, else CPU.
#   CUDA         12 or 13: which CUDA a cublas or l4t build is for (default: CUDA_MAJOR_VERSION, else what the driver needs).
#   PYTHON       the interpreter to build ./venv with (default: python3); 3.11 to 3.14.
#   PORTABLE_PYTHON=true  an interpreter in ./python, which moves with the folder; fetched if there is none. One that lies
#                there is used in any case.
#   CPU_TORCH_ONLY=1  an install for CPUs is refused where only a build for GPUs, gigabytes larger, can be had.
#   DEV=1        adds what `make test` needs.
#   TORCH_INDEX  another index to take torch from first (default: PyTorch's own, by BUILD_TYPE).
#
# No Debian package is needed at run time: the wheels bring libsndfile, libsoxr and ffmpeg's libraries along. Where there
# is a C compiler (Debian's gcc and libc6-dev), CPUs compute a tenth to a quarter faster.
set -euo pipefail
unset CDPATH # `cd` would print where it goes

# Settings for other programs must not change this install, or have a venv that works look broken: of Python's own
# variables none stays but what is asked for above, and of pip's those that say where packages come from.
for name in ${!PYTHON*}; do
  case "$name" in
    PYTHON | PYTHON_VERSION | PYTHON_PATCH | PYTHONDONTWRITEBYTECODE | PYTHONPYCACHEPREFIX) ;;
    *) unset "$name" ;;
  esac
done
export PYTHONUTF8=1
for name in ${!PIP_*}; do
  case "$name" in
    PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | PIP_FIND_LINKS | PIP_NO_INDEX | PIP_CONSTRAINT | PIP_CONFIG_FILE) ;;
    PIP_TRUSTED_HOST | PIP_CERT | PIP_CLIENT_CERT | PIP_PROXY | PIP_KEYRING_PROVIDER | PIP_TIMEOUT | PIP_DEFAULT_TIMEOUT) ;;
    PIP_RETRIES | PIP_CACHE_DIR | PIP_NO_CACHE_DIR | PIP_LOG | PIP_NO_INPUT | PIP_ROOT_USER_ACTION) ;;
    PIP_USE_FEATURE | PIP_USE_DEPRECATED | PIP_ONLY_BINARY | PIP_PREFER_BINARY) ;;
    *) unset "$name" ;;
  esac
done
# The same in a file of pip's settings, over which the environment wins.
export PIP_USER=0 PIP_NO_DEPS=0 PIP_REQUIRE_HASHES=0 PIP_DRY_RUN=0

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
    ,intel) echo xpu ;;
    ,l4t) l4t_kind ;;
    ,mps | ,metal)
      [[ "$(uname -s)" == Darwin ]] || die "BUILD_TYPE=$BUILD_TYPE is for Macs; use cublas for NVIDIA, hipblas for AMD, intel for Intel"
      echo mps
      ;;
    cpu,* | , | ,cpu)
      [[ -z "${CUDA:-}" ]] || say "CUDA=$CUDA has no effect: this is an install for CPUs; add BUILD_TYPE=cublas for a GPU"
      echo cpu
      ;;
    l4t*,*) if [[ -n "${CUDA:-}" ]]; then l4t_kind; else echo "$kept"; fi ;;
    ?*,*) echo "$kept" ;;
    ,vulkan | ,clblas | ,sycl*)
      die "BUILD_TYPE=$BUILD_TYPE is not known to PyTorch, which computes here; use cublas for NVIDIA, hipblas for AMD," \
        "intel for Intel, mps for Apple, or cpu"
      ;;
    *) die "BUILD_TYPE=$BUILD_TYPE is not known; it may be empty, cpu, cublas, hipblas, intel, l4t, mps or metal" ;;
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

l4t_kind() { # l4t12 on JetPack 6, l4t13 on JetPack 7, by the release in the board's own file: "# R36 (release), REVISION: ..."
  local forced="${CUDA:-${CUDA_MAJOR_VERSION:-}}" release
  case "$forced" in
    12 | 13) echo "l4t$forced" ;;
    "")
      release="$(sed -nE 's/^# R([0-9]+) .*/\1/p' "${TEGRA_RELEASE:-/etc/nv_tegra_release}" 2>/dev/null || true)"
      if [[ -z "$release" ]]; then
        die "this is no Jetson, or does not say which JetPack it has; name the CUDA of the Jetson with CUDA=12 (JetPack 6) or CUDA=13"
      elif ((release >= 38)); then
        echo l4t13
      elif ((release >= 36)); then
        echo l4t12
      else
        die "this Jetson has Linux for Tegra $release, of JetPack 5 or earlier, for which there is no PyTorch with Python 3.11; update it"
      fi
      ;;
    *) die "CUDA=$forced is not known; it may be 12 or 13" ;;
  esac
}

# Where the builds of torch are. Known to have 2.13.0: cpu, cu126, cu130. Believed, because nobody here could ask: rocm7.2,
# xpu, cu130 for ARM. Which versions NVIDIA's index for JetPack 6 has is not known; requirements-l4t12.txt takes several.
torch_index() {
  case "$1" in
    cpu) echo "https://download.pytorch.org/whl/cpu" ;;
    cuda12) echo "https://download.pytorch.org/whl/cu126" ;;
    cuda13 | l4t13) echo "https://download.pytorch.org/whl/cu130" ;;
    rocm) echo "https://download.pytorch.org/whl/rocm7.2" ;;
    xpu) echo "https://download.pytorch.org/whl/xpu" ;;
    l4t12) echo "https://pypi.jetson-ai-lab.io/jp6/cu129/" ;;
    mps) ;; # PyPI, or where else pip is configured to look
  esac
}

requirements_of() { # the file with torch's pin; one serves both CUDA builds, which have the same version
  case "$1" in
    cuda* | l4t13) echo requirements-cuda.txt ;;
    xpu) echo requirements-intel.txt ;;
    *) echo "requirements-$1.txt" ;;
  esac
}

torch_pin() { grep -h '^torch[=<>]' "$(requirements_of "$1")"; } # without the file's index, which pip would ask at every step

fingerprint() { # of the contents, so that a checkout that only touches files installs nothing
  "$venv/bin/python" -c '
import hashlib, pathlib, sys
digest = hashlib.sha256(sys.version.encode())
for name in sys.argv[1:]:
    digest.update(name.encode() + b"\0" + pathlib.Path(name).read_bytes())
print(digest.hexdigest())' "$@"
}

is_stamped() { [[ -f "$venv/.$1" && "$(cat "$venv/.$1")" == "$2" ]]; }

# An interpreter in ./python, as the gateway's images have it: a prefix of python-build-standalone, or a copy of another one.
portable="$here/python/bin/python3"
if compgen -G "$here/python/lib/libpython3*" >/dev/null; then # a copy may look for its library where it came from
  export LD_LIBRARY_PATH="$here/python/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

fetch_python() { # into ./python, with the gateway's own variables for the version
  local triple file url archive
  case "$(uname -s) $(uname -m)" in
    "Linux x86_64") triple=x86_64-unknown-linux-gnu ;;
    "Linux aarch64") triple=aarch64-unknown-linux-gnu ;;
    "Darwin arm64") triple=aarch64-apple-darwin ;;
    *) die "there is no portable Python for $(uname -s) $(uname -m); put one into ./python" ;;
  esac
  file="cpython-${PYTHON_VERSION:-3.12}.${PYTHON_PATCH:-12}+${PY_STANDALONE_TAG:-20251120}-$triple-install_only.tar.gz"
  file="${PORTABLE_PY_FILENAME:-$file}"
  url="https://github.com/astral-sh/python-build-standalone/releases/download/${PY_STANDALONE_TAG:-20251120}/$file"
  archive="$(mktemp)"
  say "a portable Python from $url"
  curl -fsSL --retry 3 -o "$archive" "$url" || wget -q -O "$archive" "$url" ||
    die "it cannot be fetched; put an interpreter's folder (bin/python3, lib/) here as ./python and run this again"
  if [[ -n "${PORTABLE_PY_SHA256:-}" ]]; then
    sha256sum -c - <<<"$PORTABLE_PY_SHA256  $archive" >/dev/null || die "its checksum is not PORTABLE_PY_SHA256"
  fi
  mkdir -p "$here/python"
  tar -xzf "$archive" -C "$here/python" --strip-components=1
  rm -f "$archive"
}

# Links ./venv to ./python relatively, and takes out of pyvenv.cfg what names this place: without its `home`, Python finds
# its library by following the link, from 3.11 to 3.14. So the folder can be moved, and nothing is rewritten at a start.
make_relocatable() {
  local name
  name="$("$portable" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')"
  ln -sfn "../../python/bin/$name" "$venv/bin/$name"
  ln -sfn "$name" "$venv/bin/python3"
  ln -sfn "$name" "$venv/bin/python"
  grep -vE '^(home|executable|command) *=' "$venv/pyvenv.cfg" >"$venv/pyvenv.cfg.new"
  mv "$venv/pyvenv.cfg.new" "$venv/pyvenv.cfg"
}

real_path() { "$1" -c 'import os, sys; print(os.path.realpath(sys.executable))' 2>/dev/null; }

is_venv_usable() { # ./venv has the wanted kind and interpreter, and works
  local kind="$1"
  [[ -x "$venv/bin/python" && "$(cat "$venv/.kind" 2>/dev/null)" == "$kind" ]] || return 1
  "$venv/bin/python" -c '' 2>/dev/null || return 1
  if [[ -x "$portable" ]]; then
    [[ "$(real_path "$venv/bin/python")" == "$(real_path "$portable")" ]]
  elif [[ -n "${PYTHON:-}" ]]; then # names the interpreter of a new venv; an existing one is made anew only for another Python
    [[ "$("$PYTHON" -c 'import sys; print(sys.version)')" == "$("$venv/bin/python" -c 'import sys; print(sys.version)')" ]]
  fi
}

works() { "$venv/bin/python" -c 'import pip' 2>/dev/null; } # half a venv has no pip

# A venv without our stamp that works is not thrown away, and one that this user cannot run is not judged.
adopt_venv() {
  local status=0
  [[ -e "$venv" || -L "$venv" ]] || return 0
  [[ -r "$venv" && -w "$venv" && -x "$venv" ]] ||
    die "$venv cannot be read or written by the user with the id $(id -u); run this as its owner, or remove it"
  [[ -e "$venv/bin/python" || -L "$venv/bin/python" ]] || return 0
  "$venv/bin/python" -c '' 2>/dev/null || status=$?
  ((status != 126)) || # found, and not to be run
    die "the interpreter of $venv cannot be run by the user with the id $(id -u); run this as its owner, or remove ./venv"
  if [[ ! -f "$venv/.kind" ]] && works; then
    say "./venv has no stamp of an install; it works and is kept"
    echo "$1" >"$venv/.kind"
  fi
}

# What works is kept until its successor does: an install that fails, without network for example, changes nothing.
set_venv_aside() {
  works || return 0
  rm -rf "$venv.before"
  mv "$venv" "$venv.before"
  trap 'settle_venv $?' EXIT
}

settle_venv() { # settle_venv STATUS
  if (($1 == 0)); then
    rm -rf "$venv.before"
  elif [[ -d "$venv.before" ]]; then
    rm -rf "$venv"
    mv "$venv.before" "$venv"
    say "the install failed; ./venv is what it was before"
  fi
}

make_venv() {
  local kind="$1" python="${PYTHON:-python3}"
  if is_stamped kind cuda && [[ "$kind" == cuda13 ]]; then
    echo cuda13 >"$venv/.kind" # until 0.2.0 every CUDA install was for CUDA 13, and its stamp did not say so
  fi
  [[ "${PORTABLE_PYTHON:-}" != true || -x "$portable" ]] || fetch_python
  adopt_venv "$kind"
  ! is_venv_usable "$kind" || return 0
  [[ ! -x "$portable" ]] || python="$portable"
  command -v "$python" >/dev/null || die "no $python here; install Python 3.11 to 3.14, or name one with PYTHON="
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' ||
    die "$("$python" --version) does not fit; Python 3.11 to 3.14 is needed, name one with PYTHON="
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    die "$python cannot make a venv; on Debian and Ubuntu: apt-get install python3-venv"
  say "making ./venv for $kind with $("$python" --version)"
  set_venv_aside
  "$python" -m venv --clear "$venv"
  [[ ! -x "$portable" ]] || make_relocatable
  echo "$kind" >"$venv/.kind"
}

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
pip_install() { pip install --quiet "$@"; }

# Whether pip, asked with these arguments, would find such a build of torch. It downloads nothing.
offers_torch() { # offers_torch LOCAL-VERSION [pip's arguments]
  local version
  version="$(torch_pin cpu)"
  pip index versions torch "${@:2}" 2>/dev/null | grep "[ ,(]${version#torch==}$1" >/dev/null
}

install_torch() {
  local kind="$1" index
  index="${TORCH_INDEX:-$(torch_index "$kind")}"
  if [[ -z "$index" || ("$kind" == cpu && "$(uname -s)" == Darwin) ]]; then
    say "torch for $kind" # PyPI's build for macOS is one for CPUs and Metal
    pip_install "$(torch_pin "$kind")"
    return
  fi
  say "torch for $kind from $index"
  if [[ "$kind" == cpu ]]; then
    install_cpu_torch "$index"
  else
    install_gpu_torch "$kind" "$index"
  fi
}

install_gpu_torch() {
  local kind="$1" index="$2" wanted="$1" found
  # One quick try. It takes torch's own dependencies from there too: those of the ROCm build are nowhere else.
  if ! pip_install --timeout 10 --retries 0 --index-url "$index" -r "$(requirements_of "$kind")"; then
    say "that index is out of reach or has no such torch; taking torch from where pip is configured to look"
    pip_install "$(torch_pin "$kind")"
  fi
  # Another source may hold another build under the same version: a CPU build must not pass for a GPU build, nor CUDA 13
  # for CUDA 12.
  [[ "$kind" != cuda* && "$kind" != l4t* ]] || wanted="cuda ${kind: -2}"
  found="$(torch_build)"
  if [[ "$found" != "$wanted" && "$found" != "$wanted".* ]]; then
    die "pip found a torch built for $found, not for $wanted; name an index that has it with TORCH_INDEX="
  fi
}

torch_build() {
  "$venv/bin/python" -W ignore -c 'import torch; v = torch.version
print("rocm" if v.hip else f"cuda {v.cuda}" if v.cuda else "xpu" if getattr(v, "xpu", None) else "cpu")'
}

# On Linux PyPI's build under the same version is one for CUDA: it works on CPUs, too, and is fifteen times as large to
# download. So pip is asked first which builds it sees.
install_cpu_torch() {
  local index="$1"
  if offers_torch +cpu --timeout 10 --retries 0 --index-url "$index"; then
    # Where a mirror or a folder of pip's has the build, the index itself may be out of reach: it is not waited for.
    pip_install --timeout 10 --retries 0 --index-url "$index" "$(torch_pin cpu)" ||
      pip_install --index-url "$index" "$(torch_pin cpu)"
  elif [[ "${CPU_TORCH_ONLY:-}" == 1 ]]; then
    die "$index is out of reach or has no torch for CPUs, and CPU_TORCH_ONLY=1 forbids the build for CUDA in its place;" \
      "name a mirror with TORCH_INDEX=, or a folder with the wheel with PIP_FIND_LINKS="
  else
    say "that index is out of reach or has no torch for CPUs; taking torch from where pip is configured to look." \
      "PyPI's build is one for CUDA: 3 GB to download and 5 GB on disk, where 0.2 and 0.8 would do." \
      "It computes on CPUs all the same. CPU_TORCH_ONLY=1 refuses it; TORCH_INDEX= names a mirror of the index"
    pip_install "$(torch_pin cpu)"
  fi
}

write_stubs() {
  local tools
  tools="$(mktemp -d)"
  pip_install --no-deps --target "$tools" -r requirements-stubs.txt
  PYTHONPATH="$tools" "$venv/bin/python" -m grpc_tools.protoc -Ibackend/wire=proto \
    --python_out=. --pyi_out=. --grpc_python_out=. proto/backend.proto
  rm -rf "$tools"
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
  [[ ! -d "$venv.before" ]] || settle_venv "$([[ -f "$venv/.wire" ]] && echo 0 || echo 1)" # an install was killed
  kind="$(kind_of_build)"
  requirements="$(requirements_of "$kind")"
  make_venv "$kind"

  runtime="$(fingerprint install.sh requirements.txt requirements-after.txt "$requirements")"
  if ! is_stamped runtime "$runtime"; then
    rm -f "$venv/.runtime" "$venv/.dev"
    install_torch "$kind"
    say "the rest, from requirements.txt"
    pip_install "$(torch_pin "$kind")" -r requirements.txt
    pip_install --no-deps -r requirements-after.txt
    echo "$runtime" >"$venv/.runtime"
  fi

  if [[ "${DEV:-}" == 1 ]]; then
    dev="$(fingerprint requirements.txt requirements-dev.txt)"
    if ! is_stamped dev "$dev"; then
      say "the tools for tests, from requirements-dev.txt"
      pip_install "$(torch_pin "$kind")" -r requirements.txt -r requirements-dev.txt
      echo "$dev" >"$venv/.dev"
    fi
  fi

  local wire
  wire="$(fingerprint requirements.txt requirements-stubs.txt proto/backend.proto)"
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
