# Sourced by the other scripts: leaves in PYTHON an interpreter that has the packages of setup.py.
#
# In this order: DASSL_PYTHON from the environment; the active virtualenv or conda environment, if it has the packages, used as
# is; .venv of this checkout, made or completed here (uv if there is one, else venv and pip). Set ENV_EXTRA=test before
# sourcing to ask for the test packages too. No other environment is ever changed.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
_extra=${ENV_EXTRA:-}
_venv=$ROOT/.venv
_marker=$_venv/complete             # holds the hash of the setup.py that the environment was completed for
_wanted=$(cksum <"$ROOT/setup.py")
_started=$_venv/installing          # there while an environment is made here, until it is complete for the first time

_say() { printf '%s\n' "$*" >&2; }

_lacks() {                          # _lacks <python>: prints what is missing there; true if something is
    local missing
    missing=$("$1" "$ROOT/scripts/_packages.py" $_extra 2>&1) && return 1
    printf '%s' "$missing"
}

_python_of() {                      # the interpreter of an environment folder, on Unix or Windows
    if [ -x "$1/bin/python" ]; then echo "$1/bin/python"; else echo "$1/Scripts/python.exe"; fi
}

_base_python() {                    # a Python 3.10 - 3.13 that can make environments
    local name
    for name in python3.12 python3.13 python3.11 python3.10 python3 python; do
        "$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
            >/dev/null 2>&1 && { echo "$name"; return 0; }
    done
    _say "Python 3.10 to 3.13 is needed (with its venv module) and none was found on PATH." \
         "Install one, for example \`apt install python3 python3-venv\`, or uv from https://docs.astral.sh/uv."
    return 1
}

_has_uv() { uv --version >/dev/null 2>&1; }

_make_venv() {
    local base
    if [ -e "$_started" ] && [ ! -e "$_marker" ]; then rm -rf "$_venv"; fi      # cut off before it was ever complete
    [ ! -x "$(_python_of "$_venv")" ] || return 0                               # whatever else it has stays
    if [ -e "$_venv" ]; then
        _say "$_venv has no interpreter that starts here: the Python that it was made from is gone, or belongs to another" \
             "machine. Remove the folder to have it created again, or set DASSL_PYTHON to an interpreter with the packages."
        return 1
    fi
    if _has_uv; then
        mkdir -p "$_venv" && touch "$_started" || return 1
        uv venv -q --allow-existing --python '>=3.10,<3.14' "$_venv"
    else
        base=$(_base_python) || return 1
        mkdir -p "$_venv" && touch "$_started" || return 1
        "$base" -m venv "$_venv"
    fi
}

_pip() {                            # _pip <arguments of install>: into .venv, quiet but for errors
    # uv leaves it to Python to keep bytecode. Where that is switched off, every command would take seconds longer.
    if _has_uv; then uv pip install -q ${PYTHONDONTWRITEBYTECODE:+--compile-bytecode} --python "$(_python_of "$_venv")" "$@"
    else "$(_python_of "$_venv")" -m pip install -q --disable-pip-version-check "$@"; fi
}

_install_torch_for_cpu() {          # Linux without a GPU: PyTorch's own index has builds ten times smaller than PyPI's
    [ "$(uname -s)" = Linux ] && [ ! -e /dev/nvidiactl ] && [ ! -e /dev/dxg ] || return 0
    [ -z "${PIP_INDEX_URL:-}${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] || return 0
    local index=https://download.pytorch.org/whl/cpu
    "$(_python_of "$_venv")" - "$index/torch/" >/dev/null 2>&1 <<'PROBE' || return 0
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=5)
PROBE
    _say "No NVIDIA driver here: PyTorch's builds for the CPU. For another accelerator (ROCm, Jetson) install its PyTorch in" \
         "an environment of your own, and activate that or name its interpreter in DASSL_PYTHON."
    _pip --index-url "$index" torch torchvision || _say "PyTorch's CPU index did not serve; taking torch from PyPI."
}

_is_complete() {
    [ ! -e "$_started" ] && [ "$(cat "$_marker" 2>/dev/null)" = "$_wanted" ] && ! _lacks "$(_python_of "$_venv")" >/dev/null
}

_complete_venv() {
    _is_complete && return 0
    if command -v flock >/dev/null 2>&1; then       # two scripts started together: the second waits for the first
        exec 9>"$_venv.lock"
        flock 9
        _is_complete && { exec 9>&-; return 0; }
    fi
    _say "Setting up $_venv with PyTorch and the other packages of setup.py (once; some minutes, 1 to 7 GB of disk) ..."
    _make_venv || return 1
    _install_torch_for_cpu
    if ! _pip -e "$ROOT${_extra:+[$_extra]}"; then
        _say "Installing the packages failed; the lines above say why. Run the command again to continue," \
             "or set DASSL_PYTHON to an interpreter that has them."
        return 1
    fi
    printf '%s\n' "$_wanted" >"$_marker"
    rm -f "$_started"
    [ -e "$_venv.lock" ] && exec 9>&-
    _say "$_venv is ready."
}

_choose_python() {
    local active missing
    if [ -n "${DASSL_PYTHON:-}" ]; then
        PYTHON=$DASSL_PYTHON
        case $PYTHON in /*|[A-Za-z]:*) ;; */*) PYTHON=$PWD/$PYTHON ;; esac         # scripts go to other folders
        missing=$(_lacks "$PYTHON") || return 0
        _say "DASSL_PYTHON=$PYTHON lacks: $missing"
        return 1
    fi
    active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    if [ -n "$active" ] && [ "$active" != "$_venv" ]; then
        PYTHON=$(_python_of "$active")
        missing=$(_lacks "$PYTHON") || return 0
        _say "The active environment $active stays as it is; it lacks: $missing. Using $_venv instead."
    fi
    _complete_venv || return 1
    PYTHON=$(_python_of "$_venv")
}

_choose_python || exit 1
