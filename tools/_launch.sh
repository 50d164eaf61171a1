# Sourced by the launch scripts beside it: which interpreter, how many threads, which port.
# Sets PYTHON (by MEDIC_MM_PYTHON or PYTHON if set, else the active environment's, else
# that of the repository's .venv, else python) and exports PYTHONPATH, so that the
# package need not be installed.

TOOLS=$(dirname "${BASH_SOURCE[0]}")
ROOT=$(cd "$TOOLS/.." && pwd)

fail() {
  echo "error: $*" >&2
  exit 2
}

choose_python() {
  local conda=${CONDA_DEFAULT_ENV:-base}
  PYTHON=${MEDIC_MM_PYTHON:-${PYTHON:-}}
  if [ -z "$PYTHON" ]; then
    PYTHON=python
    if [ -z "${VIRTUAL_ENV:-}" ] && [ "$conda" = base ] &&
      [ -x "$ROOT/.venv/bin/python" ]; then
      PYTHON=$ROOT/.venv/bin/python
      echo "No environment is active, so $PYTHON is used; PYTHON=... names another." >&2
    fi
  fi
  command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is no program"
  if [ -d "$ROOT/medic_mm" ]; then
    export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
  fi
}

check_count() {
  [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 is a number of processes, not '$2'"
}

# check_first PROCESSES CONFIG [arguments of tools/train.py]: look for all that is missing,
# once and in one process, before any of them starts; not with CHECK=0 or --no-check
check_first() {
  local processes=$1 word
  shift
  for word in "$@"; do
    if [ "$word" = --no-check ]; then return; fi
  done
  if [ "${CHECK:-1}" = 0 ]; then return; fi
  "$PYTHON" "$TOOLS/train.py" "$@" --check --processes "$processes" >&2 ||
    fail "nothing was started; CHECK=0 or --no-check starts all the same"
}

free_port() {
  "$PYTHON" -c 'import socket
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    print(probe.getsockname()[1])'
}

# run_distributed PROCESSES TOOL [ARGUMENTS]: under torchrun, on NNODES machines
run_distributed() {
  local processes=$1 nodes=${NNODES:-1} port=${PORT:-} cores
  shift
  if [ -z "$port" ]; then
    # several machines have to agree on the port
    if [ "$nodes" = 1 ]; then port=$(free_port); else port=29500; fi
  fi
  if [ -z "${OMP_NUM_THREADS:-}" ]; then
    cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
    OMP_NUM_THREADS=$((cores / processes))
    if [ "$OMP_NUM_THREADS" -lt 1 ]; then OMP_NUM_THREADS=1; fi
    export OMP_NUM_THREADS
  fi
  exec "$PYTHON" -m torch.distributed.run \
    --nnodes="$nodes" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="$port" \
    --nproc_per_node="$processes" \
    "$@"
}
