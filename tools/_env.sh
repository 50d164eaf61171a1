# Sourced by the other scripts. Sets TOOLS (this folder) and ROOT (the one above).
#
# choose_python sets PYTHON: MEDIC_MM_PYTHON or PYTHON if set, else the active
# environment's, else that of ROOT/.venv, else python. prepare_python, of the scripts
# that set up a clone, takes MEDIC_MM_PYTHON or an active environment that has all, else
# makes ROOT/.venv; later calls install nothing until a requirement changes.
# PIP_EXTRA_INDEX_URL and other PIP_* variables work as always.

TOOLS=$(dirname "${BASH_SOURCE[0]}")
ROOT=$(cd "$TOOLS/.." && pwd)

fail() {
  echo "error: $*" >&2
  exit 2
}

is_environment_active() {
  [ -n "${VIRTUAL_ENV:-}" ] || [ "${CONDA_DEFAULT_ENV:-base}" != base ]
}

choose_python() {
  local name=MEDIC_MM_PYTHON found
  PYTHON=${MEDIC_MM_PYTHON:-${PYTHON:-}}
  if [ -z "${MEDIC_MM_PYTHON:-}" ]; then name=PYTHON; fi
  if [ -z "$PYTHON" ]; then
    PYTHON=python
    if ! is_environment_active && [ -x "$ROOT/.venv/bin/python" ]; then
      PYTHON=$ROOT/.venv/bin/python
      echo "No environment is active, so $PYTHON is used; PYTHON=... names another." >&2
    fi
  fi
  found=$(command -v "$PYTHON") ||
    fail "$name=$PYTHON is not a program: name a Python interpreter"
  PYTHON=$(cd "$(dirname "$found")" && pwd)/$(basename "$found")
  prefer_clone
}

prefer_clone() {
  # the package need not be installed, and an installed one is not what is meant
  if [ -d "$ROOT/medic_mm" ]; then
    export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
  fi
}

# prepare_python [MODULE ...]: an interpreter that has everything, and these modules
prepare_python() {
  set -- torch mmengine mmpretrain open_clip "$@"
  PYTHON=${MEDIC_MM_PYTHON:-}
  if [ -n "$PYTHON" ]; then
    choose_python
    has_modules "$PYTHON" "$@" ||
      fail "$PYTHON lacks one of the modules $*:" \
        "run $PYTHON -m pip install -e '$ROOT[onedl,seg,tests]'"
  elif is_environment_active && has_modules python "$@"; then
    choose_python
  else
    if is_environment_active; then
      echo "The active environment lacks one of the modules $*: it is left as it is."
    fi
    make_environment
    prefer_clone
  fi
  export PATH="$(dirname "$PYTHON"):$PATH"
}

has_modules() {
  "$1" -c 'import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))' "${@:2}"
}

# status 0 for a tried version of Python; further arguments are modules it must have
is_suitable() {
  "$1" -c 'import importlib, sys
list(map(importlib.import_module, sys.argv[1:]))
sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' "${@:2}" >/dev/null 2>&1
}

find_python() {
  local name
  for name in python3 python3.12 python3.11 python3.10 python; do
    if is_suitable "$name" venv ensurepip; then
      command -v "$name"
      return
    fi
  done
  fail "no Python 3.10, 3.11 or 3.12 with its venv module is on PATH:" \
    "install one, or name an environment by MEDIC_MM_PYTHON=/path/to/python"
}

# what the environment was made from; the path too, since a copied folder's
# environment still points at the place it was copied from
fingerprint() {
  { echo "$ROOT" && cat "$ROOT"/setup.py "$ROOT"/requirements/*.txt; } |
    "$PYTHON" -c 'import hashlib, sys
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

announce() {
  echo "Installing medic_mm, the OneDL packages and PyTorch into $ROOT/.venv."
  if [ "$(uname -s)" = Linux ]; then
    echo "About 3 GB are downloaded and 6 GB stored, nearly all of it PyTorch's CUDA"
    echo "packages. For the much smaller CPU-only PyTorch stop here and set"
    echo "  PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
  else
    echo "About 0.5 GB are downloaded."
  fi
  echo "To use an environment of your own, which is left as it is, set"
  echo "  MEDIC_MM_PYTHON=/path/to/python"
}

install() {
  # an environment that was interrupted while it was made has no pip yet
  "$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip >/dev/null
  "$PYTHON" -m pip install --no-input --disable-pip-version-check \
    --editable "$ROOT[onedl,seg,tests]" ||
    fail "pip could not install the packages (its reason is above);" \
      "a second call goes on where this one stopped"
  "$PYTHON" -c 'import medic_mm.registry, mmpretrain.models, mmseg.models, open_clip' ||
    fail "the installed packages do not import (the reason is above)"
}

make_environment() {
  PYTHON=$ROOT/.venv/bin/python
  local stamp=$ROOT/.venv/medic_mm.sha256
  if [ ! -e "$PYTHON" ]; then
    local base
    base=$(find_python)
    echo "Making $ROOT/.venv with $("$base" --version) ($base)."
    "$base" -m venv "$ROOT/.venv"
  fi
  is_suitable "$PYTHON" ||
    fail "$PYTHON does not run or is not Python 3.10, 3.11 or 3.12:" \
      "remove $ROOT/.venv and call again"
  if [ "$(fingerprint)" != "$(cat "$stamp" 2>/dev/null)" ]; then
    if [ -e "$stamp" ]; then
      echo "A requirement changed or the folder was moved: updating $ROOT/.venv."
    else
      announce
    fi
    install </dev/null
    fingerprint >"$stamp"
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
