#!/usr/bin/env bash
# One study on all nodes of a Slurm allocation, by a Ray cluster that lives as long as the job:
#
#   sbatch --nodes=4 --gpus-per-node=4 --cpus-per-task=16 scripts/ray_study.sh MODEL --pairs pairs.csv --out study
#
# On one machine none of this is needed: `negprobe study ... --engine ray` starts its own workers.
# Submitted again after a time limit, the same command goes on where it was.
#SBATCH --ntasks-per-node=1
#SBATCH --job-name=negprobe
set -euo pipefail

cpus=${SLURM_CPUS_PER_TASK:-1}
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# A port of the job's own, as jobs may share a node.
export RAY_ADDRESS="$head_node:$((20000 + SLURM_JOB_ID % 10000))"
# Ray lets in only who knows the cluster's token; all steps of the job inherit this one.
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

# --block keeps the daemons in their job steps, which end with the job.
srun --nodes=1 --ntasks=1 --cpus-per-task="$cpus" --nodelist="$head_node" \
  ray start --head --port="${RAY_ADDRESS#*:}" --num-cpus="$cpus" --block &
others=$((SLURM_NNODES - 1))
if [ "$others" -gt 0 ]; then
  srun --nodes="$others" --ntasks="$others" --cpus-per-task="$cpus" --exclude="$head_node" \
    ray start --address="$RAY_ADDRESS" --num-cpus="$cpus" --block &
fi

# A study takes the nodes that are there when it begins. Ray's own patience would be a quarter of an hour a try.
RAY_NUM_REDIS_GET_RETRIES=3 python - "$SLURM_NNODES" <<'END'
import sys, time
import ray

deadline = time.monotonic() + 300
while True:
    try:
        ray.init(log_to_driver=False)
        break
    except ConnectionError:
        if time.monotonic() > deadline:
            raise
        time.sleep(2)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[1]):
    if time.monotonic() > deadline:
        sys.exit("Not all nodes have joined the Ray cluster after 5 minutes.")
    time.sleep(2)
END
negprobe study "$@" --engine ray
