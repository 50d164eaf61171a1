#!/usr/bin/env bash
# Tests a checkpoint with several processes, on GPUs or the CPU:
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
# GPUS is the number of processes on this machine. For several machines set NNODES,
# NODE_RANK, MASTER_ADDR and PORT; OMP_NUM_THREADS defaults to cores / GPUS.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

[ $# -ge 3 ] || fail "usage: bash $0 CONFIG CHECKPOINT GPUS [arguments of tools/test.py]"
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
shift 3
check_count GPUS "$GPUS"
choose_python
run_distributed "$GPUS" "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
