#!/usr/bin/env bash
# ZERO on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/zero.sh <dataset> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
no_shots zero "$@"
