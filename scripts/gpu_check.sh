#!/bin/sh
# Checks training and generation on one GPU with the torch that is installed: at most 8 minutes, offline, one JSON.
#
#   scripts/gpu_check.sh                    # on a GPU; writes gpu_check.json
#   scripts/gpu_check.sh --tiny             # small sizes, on a CPU too
#   PYTHON=.venv/bin/python scripts/gpu_check.sh --out FILE
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_WAIT_POLICY=PASSIVE
exec timeout 480 "${PYTHON:-python3}" "$here/gpu_check.py" "$@"
