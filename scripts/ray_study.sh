#!/usr/bin/env bash
# One study on all nodes of a Slurm allocation, by a Ray cluster that lives as long as the job:
#
#   sbatch --nodes=4 --gpus-per-node=4 scripts/ray_study.sh google-bert/bert-large-uncased --pairs pairs.csv --out study
#
# On one machine none of this is needed: `negprobe study ... --engine ray` starts its own workers.
# Submitted again after a time limit, the same command goes on where it was.
#SBATCH --ntasks-per-node=1
#SBATCH --job-name=negprobe
set -euo pipefail

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export RAY_ADDRESS="$head_node:6379"
# --block keeps the daemons in their job steps, which end with the job.
srun --nodes=1 --ntasks=1 --nodelist="$head_node" ray start --head --port=6379 --block &
sleep 15
if [ "$SLURM_NNODES" -gt 1 ]; then
  others=$((SLURM_NNODES - 1))
  srun --nodes="$others" --ntasks="$others" --exclude="$head_node" ray start --address="$RAY_ADDRESS" --block &
  sleep 15
fi
negprobe study "$@" --engine ray
