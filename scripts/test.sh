#!/usr/bin/env bash
# The tests, in the environment that the other scripts use. Usage: bash scripts/test.sh [pytest arguments]
# `-m slow` runs the tests that start many processes or repeat in numbers, `-m slurm tests/cluster` a real Slurm.
set -euo pipefail
ENV_EXTRA=test
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
cd "$ROOT"
# Two processes of one thread each: on two cores, more threads only wait for one another. Files in their own order:
# xdist would leave the files with few tests to the end, which are the longest.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
exec "$PYTHON" -m pytest -n "${JOBS:-2}" --dist loadfile --no-loadscope-reorder "$@"
