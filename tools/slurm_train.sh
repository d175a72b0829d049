#!/usr/bin/env bash
# Train on a Slurm cluster: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG GPUS [options of train.py]
# GPUS_PER_NODE (default 8, or GPUS if fewer), CPUS_PER_TASK (5) and SRUN_ARGS can be set.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
gpus=$4
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
if [ $((gpus % per_node)) -ne 0 ]; then
    echo "error: $gpus GPUS cannot be spread over nodes of GPUS_PER_NODE=$per_node. Choose a multiple." >&2
    exit 2
fi
# SRUN_ARGS is split into words on purpose.
# shellcheck disable=SC2086
exec srun --partition="$partition" --job-name="$job_name" --gres="gpu:$per_node" --ntasks="$gpus" \
    --ntasks-per-node="$per_node" --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$config" --launcher slurm "${@:5}"
