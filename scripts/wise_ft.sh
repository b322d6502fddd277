#!/usr/bin/env bash
# WiSE-FT on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/wise_ft.sh <dataset> <shots> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot wise_ft "$@"
