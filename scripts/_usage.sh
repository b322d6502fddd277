# Sourced by the method scripts: their usage text, and the call of tools/sweep.py that each of them is.

usage() {                           # usage <script> <arguments> <example>
    cat <<TEXT
Usage: bash scripts/$1.sh $2 [--dry-run] [--force] [more options of tools/sweep.py] [KEY VALUE ...]

  dataset    a file name of configs/datasets, e.g. digits (real handwritten digits, nothing to download),
             digits_lowcontrast, shapes, oxford_pets, dtd, imagenet; or --dataset-dir PATH for images of your own
             (a folder with one folder per class, or a CSV or JSON), with --config tiny for the embedded model
  --protocol fewshot (all classes), base2new (train on half of them, test on both halves), cross or dg (train on
             the dataset, test on --targets A B ...), incremental (classes arrive in --tasks N), lodo (each domain left
             out), matrix (every target from every source's prompts), robust (also under an attack), ablation (dapt:
             without either loss, with one, with both)
  --dry-run  print the plain \`python tools/train.py ...\` commands and run nothing
  --force    run again what is finished
  --jobs N   runs side by side (default: as many as the CPU cores or GPUs carry)
  KEY VALUE  options of the config, e.g. OPTIM.LR 0.01; such runs get a folder of their own
${USAGE_OF_OPTIONS:+$USAGE_OF_OPTIONS
}
Environment: DATA (root of the datasets, default data/), OUTPUT (default output/), SEEDS (default "1 2 3"),
DASSL_PYTHON (interpreter to use; default: the active environment, else .venv, which is made when missing).

Example: bash scripts/$1.sh $3
TEXT
}

_refuse() {                         # _refuse <script> <what is wrong> <arguments of an example>
    printf '%s.sh: %s.\nExample: bash scripts/%s.sh %s\nbash scripts/%s.sh --help shows all options.\n' \
        "$1" "$2" "$1" "$3" "$1" >&2
    exit 2
}

_start() {                          # _start <arguments of sweep.py>: same process, so Ctrl-C and the exit code are its own
    source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
    exec "$PYTHON" "$ROOT/tools/sweep.py" "$@"
}

few_shot() {                        # few_shot <recipe> <dataset> <shots> [options]; USAGE_OF_OPTIONS: the script's own
    local recipe=$1 script argument named=--datasets
    script=$(basename "$0" .sh)
    shift
    for argument in "$@"; do
        case $argument in -h|--help) usage "$script" "<dataset> <shots>" "digits 16"; exit 0 ;; esac
    done
    if [ "${1:-}" = --dataset-dir ]; then named=$1; shift; fi
    if [ $# -lt 1 ]; then _refuse "$script" "no dataset was named" "digits 16"; fi
    if [ $# -lt 2 ]; then _refuse "$script" "the number of shots is missing" "$1 16"; fi
    case $2 in full) ;; ""|*[!0-9]*|0*) _refuse "$script" "shots must be a whole number of at least 1, or full, got '$2'" "$1 16" ;; esac
    _start --recipe "$recipe" "$named" "$1" --shots "$2" "${@:3}"
}

no_shots() {                        # no_shots <recipe> <dataset> [options]: nothing is trained
    local recipe=$1 script argument named=--datasets
    script=$(basename "$0" .sh)
    shift
    for argument in "$@"; do
        case $argument in -h|--help) usage "$script" "<dataset>" "digits"; exit 0 ;; esac
    done
    if [ "${1:-}" = --dataset-dir ]; then named=$1; shift; fi
    if [ $# -lt 1 ]; then _refuse "$script" "no dataset was named" "digits"; fi
    case ${2:-none} in *[!0-9]*) ;; *) set -- "$1" "${@:3}" ;; esac      # a number of shots changes nothing here
    _start --recipe "$recipe" "$named" "$1" "${@:2}"
}
