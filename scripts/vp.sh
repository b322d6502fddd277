#!/usr/bin/env bash
# VP (a frame added to the image) on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/vp.sh <dataset> <shots> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot vp "$@"
