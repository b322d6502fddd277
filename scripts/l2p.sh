#!/usr/bin/env bash
# L2P on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/l2p.sh <dataset> <shots> --protocol incremental [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
few_shot l2p "$@"
