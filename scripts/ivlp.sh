#!/usr/bin/env bash
# IVLP on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/ivlp.sh <dataset> <shots> [options]
# The settings are MaPLe's; PromptSRC's are python tools/sweep.py --recipe ivlp_promptsrc --datasets ... --shots ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot ivlp "$@"
