#!/usr/bin/env bash
# TaskBias on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/task_bias.sh <dataset> <shots> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot task_bias "$@"
