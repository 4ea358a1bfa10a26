#!/usr/bin/env bash
# tools/dist_train.sh RECIPE PROCESSES [options of razordeploy train]: one training on several GPUs, or CPU processes.
# On several machines, run it on each: NNODES, NODE_RANK (0 on the first), MASTER_ADDR (of the first), PORT.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: tools/dist_train.sh RECIPE PROCESSES [options of razordeploy train]" >&2
    exit 2
fi
recipe=$1
processes=$2
shift 2
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$processes" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" \
    "$(dirname "${BASH_SOURCE[0]}")/train.py" "$recipe" --launcher pytorch "$@"
