#!/usr/bin/env bash
# TemporalPrompt on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/temporal_prompt.sh <dataset> <shots> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot temporal_prompt "$@"
