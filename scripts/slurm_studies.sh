#!/usr/bin/env bash
# Many models, a study each, as a Slurm array; models.txt names a model a line:
#
#   sbatch --array=1-$(wc -l < models.txt) --gpus=1 --time=4:00:00 scripts/slurm_studies.sh models.txt --pairs pairs.csv
#
# A job that is killed or runs out of time is put back in the queue, and goes on where it was.
#SBATCH --job-name=negprobe
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

models=$1
shift
model=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$models")
[ -n "$model" ] || { echo "$models has no line $SLURM_ARRAY_TASK_ID" >&2; exit 1; }
negprobe study "$model" "$@" --out "studies/${model//\//--}"
