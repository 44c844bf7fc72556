#!/usr/bin/env bash
# Builds the source archive and the wheel from it, installs each in a new virtual environment with nothing else in it,
# and runs negprobe there, away from the repository.
#
#   scripts/check_packages.sh [PYTHON]    the interpreter of the environments; python3 by default
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
cd "$place"
for package in dist/*.whl dist/*.tar.gz; do
  echo "$package"
  "$python" -m venv --clear clean
  clean/bin/pip install -q -c "$root/constraints.txt" "$package"
  clean/bin/python -c "import negprobe; assert negprobe.__file__.startswith('$place/clean'), negprobe.__file__"
  clean/bin/negprobe doctor
  clean/bin/negprobe study --limit 8 --patch-pairs 2 --circuit-pairs 0 --out study > study.log
  test -s study/report.html
  rm -r study
done
