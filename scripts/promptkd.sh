#!/usr/bin/env bash
# PromptKD on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/promptkd.sh <dataset> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
no_shots promptkd "$@"
