#!/usr/bin/env bash
# APE-T on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/ape_t.sh <dataset> <shots> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot ape_t "$@"
