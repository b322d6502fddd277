#!/usr/bin/env bash
# AR (a border around the image) on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/ar.sh <dataset> <shots> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot ar "$@"
