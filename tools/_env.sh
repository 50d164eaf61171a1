# Sourced by the scripts beside it. Sets and exports ROOT (the repository) and PYTHON
# (an interpreter that has everything), and puts its folder first on PATH. The first
# call makes ROOT/.venv; later ones install nothing until a requirement changes.
#
#   MEDIC_MM_PYTHON=/path/to/python   use this interpreter as it is and install nothing
#   PIP_EXTRA_INDEX_URL and other PIP_* variables work as always

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
  echo "error: $*" >&2
  exit 1
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
  echo "Installing medic_mm, the OneDL host and PyTorch into $ROOT/.venv."
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

use_own_environment() {
  PYTHON=$ROOT/.venv/bin/python
  local stamp=$ROOT/.venv/medic_mm.sha256
  if [ ! -e "$PYTHON" ]; then
    local base
    base=$(find_python)
    echo "Making $ROOT/.venv with $("$base" --version) ($base)."
    "$base" -m venv "$ROOT/.venv"
  fi
  is_suitable "$PYTHON" ||
    fail "$PYTHON does not run or is no Python 3.10, 3.11 or 3.12:" \
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

use_given_environment() {
  PYTHON=$(command -v "$MEDIC_MM_PYTHON") ||
    fail "MEDIC_MM_PYTHON=$MEDIC_MM_PYTHON is no program: name a Python interpreter"
  PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/$(basename "$PYTHON")
  "$PYTHON" -c 'import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))' \
    torch mmengine mmpretrain open_clip ||
    fail "MEDIC_MM_PYTHON=$MEDIC_MM_PYTHON lacks torch, mmengine, mmpretrain or" \
      "open_clip: run $MEDIC_MM_PYTHON -m pip install -e '$ROOT[onedl,seg,tests]'"
  # the package need not be installed there, and an installed one is not what is meant
  export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
}

if [ -n "${MEDIC_MM_PYTHON:-}" ]; then
  use_given_environment
else
  use_own_environment
fi
PATH=$(dirname "$PYTHON"):$PATH
export ROOT PYTHON PATH
