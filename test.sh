#!/usr/bin/env bash
# What must hold before a change is kept: lint, format, strict types, tests. CI runs it through `make test`.
# Arguments go to pytest: ./test.sh test/wire -k proto
set -euo pipefail

cd -P "$(dirname "${BASH_SOURCE[0]}")"
bin=venv/bin

"$bin/ruff" check .
"$bin/ruff" format --check .
"$bin/mypy"
exec "$bin/python" -m pytest "$@"
