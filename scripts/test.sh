#!/usr/bin/env bash
# The tests, in the environment that the other scripts use. Usage: bash scripts/test.sh [--quick] [pytest arguments]
set -euo pipefail
QUICK=(tests/test_layers.py tests/clip/test_prompted_towers.py tests/parts/test_parity.py tests/engine/test_resume.py
       tests/tools/test_sweep.py tests/test_every_trainer.py)

usage() {
    cat <<'TEXT'
Usage: bash scripts/test.sh [--quick] [pytest arguments]

  (nothing)  all tests but the slow ones: 6 to 8 minutes on two cores with nothing else to do
  --quick    about a minute: the matrix for one trainer of each kind, golden numbers, layers, resuming, sweeps
  -m slow    tests that start many processes or repeat in numbers: much longer than all others
  -m slurm tests/cluster
             on a real Slurm, as root on Debian
  FILE ...   these tests alone, e.g. tests/test_every_trainer.py -k CoOp

Environment: JOBS (processes, default 2; 0: only pytest's own), DASSL_PYTHON (interpreter to use; default: the
active environment, else .venv, which is made when missing).
TEXT
}

words=() takes="6 to 8 minutes on two cores; --quick takes one, --help says more"
for word in "$@"; do
    case $word in
        -h|--help) usage; exit 0 ;;
        --quick) words=(-m "not slow and not slurm and not sibling" "${QUICK[@]}"); takes="about a minute" ;;
    esac
done
for word in "$@"; do [ "$word" = --quick ] || words+=("$word"); done
case " $* " in
    *" -m slow "*) takes="much longer than the others" ;;
    *" -m "*|*" -k "*|*tests/*|*" --last-failed "*) takes= ;;
esac

ENV_EXTRA=test
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
cd "$ROOT"
[ -z "$takes" ] || _say "These tests take $takes."
# Two processes of one thread each: on two cores, more threads only wait for one another. Files in their own order:
# xdist would leave the files with few tests to the end, which are the longest.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
unset PYTHONDONTWRITEBYTECODE       # programs that the tests start would compile this project each time
exec "$PYTHON" -m pytest -n "${JOBS:-2}" --dist loadfile --no-loadscope-reorder ${words[@]+"${words[@]}"}
