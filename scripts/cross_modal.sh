#!/usr/bin/env bash
# A cross-modal linear probe on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/cross_modal.sh <dataset> <shots> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot cross_modal "$@"
