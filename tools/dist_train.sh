#!/usr/bin/env bash
# Trains with several processes, on GPUs or, where there are none, on the CPU over gloo:
#   bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# GPUS is the number of processes on this machine. For several machines set NNODES,
# NODE_RANK, MASTER_ADDR and PORT; OMP_NUM_THREADS defaults to cores / GPUS.
# What is missing (data, teacher, memory, disk) is looked for before any process starts:
# `tools/train.py CONFIG --check`. CHECK=0, or --no-check at the end, leaves that out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

[ $# -ge 2 ] || fail "usage: bash $0 CONFIG GPUS [arguments of tools/train.py]"
CONFIG=$1
GPUS=$2
shift 2
check_count GPUS "$GPUS"
choose_python
check_first "$((GPUS * ${NNODES:-1}))" "$CONFIG" "$@"
run_distributed "$GPUS" "$TOOLS/train.py" "$CONFIG" --launcher pytorch "$@"
