#!/usr/bin/env bash
# CODAPrompt on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/coda_prompt.sh <dataset> <shots> --protocol incremental [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot coda_prompt "$@"
