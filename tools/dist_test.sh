#!/usr/bin/env bash
# Test on several GPUs of one machine or more: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]
# More machines: set NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT alike on each.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
if ! [[ $gpus =~ ^[1-9][0-9]*$ ]]; then
    echo "error: GPUS is $gpus, but it is the number of processes on this machine. Give 1 or more." >&2
    exit 2
fi
exec python -m glean_ext.cli.launch --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${MASTER_PORT:-29500}" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "${@:4}"
