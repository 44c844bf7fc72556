#!/usr/bin/env bash
# Builds the source archive, the wheel from it, and runs the wheel's command line away from the repository.
#
#   scripts/check_packages.sh [PYTHON]    an interpreter that has negprobe's dependencies; python3 by default
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=$(command -v "${1:-python3}")
case $python in /*) ;; *) python=$PWD/$python ;; esac
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m venv "$place/build"
"$place/build/bin/pip" install -q build
# The wheel is built from the source archive, so that it shows that nothing is missing there.
"$place/build/bin/python" -m build --outdir "$place/dist" "$root" > "$place/log" 2>&1 || { cat "$place/log" >&2; exit 1; }
"$python" -m pip install -q --no-deps --target "$place/site" "$place"/dist/*.whl
cd "$place"
export PYTHONPATH=$place/site
"$python" -c "import negprobe; assert negprobe.__file__.startswith('$place'), negprobe.__file__"
HF_HUB_OFFLINE=1 "$python" -m negprobe doctor
"$python" -m negprobe view --limit 2 --out "$place/view.html" > /dev/null
ls "$place/dist"
