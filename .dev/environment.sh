#!/usr/bin/env bash
# Make a virtual environment: environment.sh DIR KIND
#   lint  ruff alone
#   wheel what builds the package
#   docs  what builds the site; it reads the package without importing it
#   demo  torch and the onedl packages; nothing is compiled
#   test  the same with mmdetection, pytest and mmcv's compiled operators
#         (without these if OPS=0)
#   mim   the onedl packages and onedl-mim, not this project: the tests put
#         its wheel there
# Variables: PYTHON, PIP_ARGS (added to each pip install), OPS.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1 kind=$2
base=${PYTHON:-python3}

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf '\nERROR: %s\n' "$1" >&2
    shift
    printf '       %s\n' "$@" >&2
    exit 1
}

command -v "$base" >/dev/null ||
    fail "no $base here: install Python 3.10 or newer, or name one:" \
         "make ... PYTHON=/path/to/python3"
"$base" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$base" --version) is too old: Python 3.10 or newer is needed." \
         "Name another one: make ... PYTHON=/path/to/python3"
"$base" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$base cannot make virtual environments. On Debian or Ubuntu:" \
         "apt-get install python3-venv"

say "environment $dir ($kind)"
"$base" -m venv --clear "$dir"
python=$dir/bin/python
# shellcheck disable=SC2086  # PIP_ARGS is a list of arguments
pip_install() {
    "$python" -m pip --disable-pip-version-check install --no-compile \
        --constraint requirements/constraints.txt ${PIP_ARGS:-} "$@"
}

case $kind in
lint) pip_install ruff; exit ;;
wheel) pip_install build; exit ;;
docs) pip_install mkdocs-material 'mkdocstrings[python]' ruff; exit ;;
demo) packages='--editable .[onedl]' ;;
test) packages='--editable .[onedl,onedl-det,test]' ;;
mim) packages='onedl-mmengine onedl-mmsegmentation onedl-mim' ;;
*) fail "no such kind of environment: $kind" ;;
esac

say 'torch'
pip_install torch
if [ "$kind" = test ] && [ "${OPS:-1}" != 0 ]; then
    pip_install ninja setuptools numpy packaging
    wheel=$(bash .dev/mmcv_wheel.sh "$python")
    pip_install --no-deps "$wheel"
else
    say 'mmcv, nothing compiled'
    # Without its cache pip cannot pick an mmcv that was once compiled on
    # this machine for another torch.
    MMCV_WITH_OPS=0 pip_install --no-cache-dir --no-deps onedl-mmcv
fi
say "$packages"
# shellcheck disable=SC2086
pip_install $packages
# mmcv asks for opencv-python, whose module needs libGL and friends from the
# system; the headless one is the same module without windows. Both write
# the folder cv2: the last one wins.
say 'opencv without a display'
pip_install --force-reinstall --no-deps opencv-python-headless

"$python" -c 'import cv2, mmcv, mmengine, mmseg'
[ -z "${wheel:-}" ] || "$python" -c 'import torch, mmcv._ext' ||
    fail "the compiled operators of $wheel do not load: remove that file" \
         'and try again'
