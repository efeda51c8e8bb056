#!/usr/bin/env bash
# Print the path of an onedl-mmcv wheel with compiled operators for a Python:
# mmcv_wheel.sh PYTHON. It is built where the cache has none.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1

say() { printf '%s\n' "$@" >&2; }
fail() {
    printf '\nERROR: %s\n' "$1" >&2
    shift
    printf '       %s\n' "$@" >&2
    exit 1
}

version=$(sed -n 's/^onedl-mmcv==//p' requirements/constraints.txt)
# All that a compiled wheel depends on.
key=$("$python" - "$version" <<'PY'
import sys
import sysconfig

import torch

print(
    f'onedl-mmcv-{sys.argv[1]}-torch-{torch.__version__}',
    sys.implementation.cache_tag,
    sysconfig.get_platform(),
    sep='-',
)
PY
)
cache=${XDG_CACHE_HOME:-${HOME:-$PWD}/.cache}/mmseg_attn/wheels/$key
found() { find "$cache" -name '*.whl' 2>/dev/null | head -n 1; }

if [ -n "$(found)" ]; then
    say '' "== mmcv with compiled operators, from $cache"
    found
    exit
fi

without='or run without these operators: make test OPS=0'
command -v g++ >/dev/null ||
    fail 'no C++ compiler (g++) to build the operators of mmcv.' \
         "On Debian or Ubuntu: apt-get install g++ ($without)"
header=$("$python" -c \
    'import sysconfig; print(sysconfig.get_path("include"))')/Python.h
[ -f "$header" ] ||
    fail "no $header to build the operators of mmcv." \
         "On Debian or Ubuntu: apt-get install python3-dev ($without)"

say '' "== building the operators of mmcv $version, once: 10 to 30 minutes" \
    "   (kept in $cache)"
mkdir -p "$cache"
work=$(mktemp -d "$cache/.build-XXXXXX")
trap 'rm -rf "$work"' EXIT
# Where ninja is; without it one file is compiled at a time.
PATH=$(cd "$(dirname "$python")" && pwd):$PATH
# For the CPU alone: no nvcc is needed, and it takes minutes, not an hour.
export MMCV_WITH_OPS=1 FORCE_CUDA=0 CUDA_VISIBLE_DEVICES=
export MAX_JOBS=${MAX_JOBS:-$(nproc)}
# pip's own cache may hold an mmcv built without operators.
"$python" -m pip --disable-pip-version-check wheel -v --no-cache-dir \
    --no-build-isolation --no-deps --wheel-dir "$work" \
    "onedl-mmcv==$version" 2>&1 | tee "$work/build.log" |
    sed -un 's/^ *\(\[[0-9]*\/[0-9]*\]\).*/\1 compiled/p' >&2 || {
    tail -n 40 "$work/build.log" >&2
    fail "onedl-mmcv $version could not be built (the end of its log is" \
         "above): mend what it names, $without"
}
built=$(find "$work" -name '*.whl')
"$python" - "$built" <<'PY' || fail "$built holds no compiled operators"
import sys
import zipfile

names = zipfile.ZipFile(sys.argv[1]).namelist()
sys.exit(not any(name.startswith('mmcv/_ext.') for name in names))
PY
mv "$built" "$cache/"  # one rename: never half a wheel in the cache
found
