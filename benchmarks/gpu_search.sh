#!/bin/sh
# All measurements on a GPU, of searches and trainings, in one call of at most nine minutes; needs torch 2.9 or newer, and no registry.
#   benchmarks/gpu_search.sh FOLDER_OF_CIFAR10 [OUT] [options of gpu_search.py, such as --precision tf32]
#   PYTHON=.venv/bin/python benchmarks/gpu_search.sh digits runs/gpu --dry      everything once, tiny, on the CPU
#   benchmarks/gpu_search.sh FOLDER_OF_CIFAR10 runs/gpu --space nas-bench-201 --truth FILE [--method NAME]
set -eu
data=${1:?folder with CIFAR-10, or digits}
out=${2:-runs/gpu}
[ $# -ge 2 ] && shift 2 || shift $#
here=$(cd "$(dirname "$0")" && pwd)
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
PYTHONPATH="$here/..:$here" PYTHONUNBUFFERED=1 exec timeout 540 "${PYTHON:-python3}" "$here/gpu_search.py" \
    --data "$data" --out "$out" --minutes 8.5 "$@"
