#!/usr/bin/env bash
# TDA on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/tda.sh <dataset> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
no_shots tda "$@"
