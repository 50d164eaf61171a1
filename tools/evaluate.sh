#!/usr/bin/env bash
# Evaluates a pre-trained checkpoint on all the data there are and writes one table.
# The arguments are those of evaluate.py: see tools/evaluate.sh --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
choose_python
exec "$PYTHON" "$TOOLS/evaluate.py" "$@"
