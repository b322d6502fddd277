#!/usr/bin/env bash
# Zero-shot CLIP on a dataset and the table. Usage: bash scripts/zeroshot.sh <dataset> [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
no_shots zeroshot "$@"
