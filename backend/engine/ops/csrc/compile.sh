#!/usr/bin/env bash
# Compiles the C sources of a folder to one shared library: compile.sh PYTHON SOURCES LIBRARY [more compiler flags]
#
# PYTHON is an interpreter that has torch; CC names the compiler (default: cc). Where the library cannot be made, the cause
# is on stderr, the exit code is 1, and no library is left.
set -euo pipefail

python="$1" sources="$2" library="$3"
shift 3
read -ra cc <<<"${CC:-cc}"
objects="$(mktemp -d)"
trap 'rm -rf "$objects" "$library.new"' EXIT

fail() { printf 'compile.sh: %s\n' "$*" >&2; exit 1; }

rm -f "$library"
command -v "${cc[0]}" >/dev/null || fail "no C compiler here"

# Linked to torch's own OpenMP, wherever its wheel has it: a second OpenMP would bring threads of its own that compete with
# torch's. So -fopenmp is not given to the linker, which would link the compiler's.
openmp="$("$python" -c '
import importlib.util, pathlib
torch = pathlib.Path(importlib.util.find_spec("torch").submodule_search_locations[0])
print(next(path for place in ("torch/lib", "torch.libs") for path in torch.parent.glob(place + "/libgomp*")))' 2>/dev/null)" ||
  fail "this torch has no GNU OpenMP"

# As digest() in engine/ops/native.py, which does not use a library of other sources.
digest="$(LC_ALL=C; cat "$sources"/*.[ch] | sha256sum)"
for source in "$sources"/*.c; do
  "${cc[@]}" -O3 -fopenmp -fPIC -fno-math-errno -fno-trapping-math -Wno-psabi -DSOURCE_DIGEST="\"${digest%% *}\"" "$@" \
    -c -o "$objects/$(basename "$source" .c).o" "$source" || fail "${cc[*]} does not compile $source"
done
"${cc[@]}" -shared "$@" -o "$library.new" "$objects"/*.o "$openmp" || fail "${cc[*]} does not link the kernels to $openmp"
mv -f "$library.new" "$library"
