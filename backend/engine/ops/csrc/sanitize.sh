#!/usr/bin/env bash
# Runs the tests of the C kernels with the address and undefined-behaviour sanitizers: `make sanitize`.
#
# It works on a copy of backend/ and test/ in build/sanitize, so that no sanitized library is left in the source tree. The
# kernels that this processor cannot run are skipped; pytest's summary names each. Needs gcc with libasan and libubsan.
set -euo pipefail

cd -P "$(dirname "${BASH_SOURCE[0]}")/../../../.."
root="$PWD" copy="$PWD/build/sanitize"
csrc=backend/engine/ops/csrc
read -ra cc <<<"${CC:-cc}"

rm -rf "$copy"
mkdir -p "$copy"
cp -R backend test pyproject.toml "$copy"
cd "$copy"
compile() { bash "$csrc/compile.sh" "$root/venv/bin/python" "$csrc" "$csrc/libkernels.so" "$@"; }
compile -Wall -Wextra -Werror
# -w, because with the second sanitizer gcc warns of loops that it does not unroll
compile -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined -w

# Python and torch are not sanitized, so the sanitizers' libraries must be loaded first, and Python's own leaks do not
# count. test_malloc.py is about glibc's malloc, which the address sanitizer replaces. --capture=sys leaves stderr itself
# alone, where the sanitizers report before they end the process.
LD_PRELOAD="$("${cc[@]}" -print-file-name=libasan.so) $("${cc[@]}" -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
  "$root/venv/bin/python" -m pytest test/engine/ops --ignore test/engine/ops/test_malloc.py -rs --capture=sys "$@"
