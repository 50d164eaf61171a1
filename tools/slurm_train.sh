#!/usr/bin/env bash
# Trains as a Slurm job:
#   bash tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [arguments of tools/train.py]
# GPUS (default 8), GPUS_PER_NODE (8, or GPUS if that is less), CPUS_PER_TASK (5) and
# SRUN_ARGS (further arguments of srun) are taken from the environment.
# What is missing (data, teacher, disk) is looked for before the job is queued, on this
# machine: CHECK=0, or --no-check at the end, leaves that out.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

[ $# -ge 4 ] ||
  fail "usage: bash $0 PARTITION JOB CONFIG WORK_DIR [arguments of tools/train.py]"
PARTITION=$1
JOB=$2
CONFIG=$3
WORK_DIR=$4
shift 4
GPUS=${GPUS:-8}
check_count GPUS "$GPUS"
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
check_count GPUS_PER_NODE "$GPUS_PER_NODE"
choose_python
# split at blanks, as a command line is; no file names are filled in
read -r -a SRUN_ARGS <<<"${SRUN_ARGS:-}"

check_first "$GPUS" "$CONFIG" --work-dir "$WORK_DIR" "$@"
exec srun \
  --partition="$PARTITION" \
  --job-name="$JOB" \
  --gres="gpu:$GPUS_PER_NODE" \
  --ntasks="$GPUS" \
  --ntasks-per-node="$GPUS_PER_NODE" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" \
  --kill-on-bad-exit=1 \
  ${SRUN_ARGS[@]+"${SRUN_ARGS[@]}"} \
  "$PYTHON" -u "$TOOLS/train.py" "$CONFIG" --work-dir "$WORK_DIR" --launcher slurm "$@"
