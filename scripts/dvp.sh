#!/usr/bin/env bash
# DVP on a dataset, seeds 1 2 3, and the table. Usage: bash scripts/dvp.sh <dataset> <shots> [--variant cse|cls] [options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"
USAGE_OF_OPTIONS="  --variant  cls (default): a visual prompt per cluster of descriptions; cse: one per cause"

variant=cls
words=()
while [ $# -gt 0 ]; do
    case $1 in
        --variant) variant=${2:-}; shift ;;
        --variant=*) variant=${1#*=} ;;
        *) words+=("$1") ;;
    esac
    [ $# -eq 0 ] || shift
done
case $variant in
    cse|cls) few_shot "dvp_$variant" ${words[@]+"${words[@]}"} ;;
    *) printf "%s\n" "--variant must be cls (prompts by clusters of descriptions) or cse (by causes), got '$variant'." >&2; exit 2 ;;
esac
