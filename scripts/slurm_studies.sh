#!/usr/bin/env bash
# Many models, a study each, as a Slurm array; models.txt names a model a line:
#
#   sbatch --array=1-$(wc -l < models.txt) --gpus=1 --time=4:00:00 scripts/slurm_studies.sh models.txt --pairs pairs.csv
#
# A job that is preempted, whose node fails or that runs out of time is put back in the queue, and goes on where it was.
#SBATCH --job-name=negprobe
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@60
set -euo pipefail

models=$1
shift
model=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$models")
[ -n "$model" ] || { echo "$models has no line $SLURM_ARRAY_TASK_ID" >&2; exit 1; }

# Slurm does not put back what runs out of time; the signal comes a minute or two before.
put_back() {
  kill -TERM "$study"
  wait "$study" || true
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  exit
}
trap put_back USR1
# In the background, because a shell hears no signal while it waits for a command in the foreground.
negprobe study "$model" "$@" --out "studies/${model//\//--}" &
study=$!
wait "$study"
