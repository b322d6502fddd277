#!/usr/bin/env bash
# CAR-FT on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/car_ft.sh <dataset> <shots> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot car_ft "$@"
