#!/usr/bin/env bash
# Trains MEDiC on the built-in data set and shows what it learned.
# The arguments are those of quickstart.py: see tools/quickstart.sh --help.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
prepare_python
exec "$PYTHON" "$ROOT/tools/quickstart.py" "$@"
