#!/usr/bin/env bash
# Checks style and types and runs the default tests: tools/run_tests.sh
# The long parts, alone or together: tools/run_tests.sh --faults --docs --newcomers
# With other arguments only pytest runs, and gets them: tools/run_tests.sh tests/masking -x
# PYTEST_XDIST_AUTO_NUM_WORKERS sets the number of processes (default: cores, at most 4)
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
cd "$ROOT"
prepare_python pytest xdist
# tests run in several processes; more threads in each would only get in their way
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
processes=(--numprocesses=auto --maxprocesses=4 --dist=worksteal)

parts=
while [[ ${1:-} =~ ^--(faults|docs|newcomers)$ ]]; do
  parts=${parts:+$parts or }${BASH_REMATCH[1]}
  shift
done
if [ -n "$parts" ]; then
  exec "$PYTHON" -m pytest -m "$parts" "${processes[@]}" "$@"
fi
if [ $# -gt 0 ]; then
  exec "$PYTHON" -m pytest "$@"
fi

failed=()
check() {
  echo "== $*"
  "$PYTHON" -m "$@" </dev/null || failed+=("$*")
}
check ruff check .
check ruff format --check .
check mypy
check pytest "${processes[@]}"

if [ ${#failed[@]} -gt 0 ]; then
  printf 'failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
echo 'All checks passed.'
