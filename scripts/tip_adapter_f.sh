#!/usr/bin/env bash
# Tip-Adapter-F on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/tip_adapter_f.sh <dataset> <shots> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot tip_adapter_f "$@"
