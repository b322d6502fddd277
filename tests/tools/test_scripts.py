"""The scripts through bash: their commands, their usage, and which environment they choose. Nothing is installed."""
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.runs.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "configs" / "recipes"
CALLS = {path.stem: call for path in sorted((ROOT / "scripts").glob("[a-z]*.sh"))
         if (call := re.search(r'^(few_shot|no_shots) (\w+) "\$@"$', path.read_text(), re.MULTILINE))}

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="the scripts need bash")


def bash(*words, cwd=ROOT, **environment):
    """Run with this interpreter's environment active."""
    ours = ("DATA", "OUTPUT", "SEEDS", "DASSL_PYTHON", "ENV_EXTRA", "CONDA_PREFIX")
    keep = {k: v for k, v in os.environ.items() if k not in ours}
    return subprocess.run(["bash", *map(str, words)], cwd=cwd, capture_output=True, text=True,
                          env={**keep, "VIRTUAL_ENV": sys.prefix, **environment}, timeout=60)


def of(commands, flag):
    """What follows a flag in each command."""
    return [words[words.index(flag) + 1] for words in commands]


@pytest.mark.parametrize("script", CALLS)
def test_a_script_is_the_call_of_its_recipe(script, expanded):
    lines = [line for line in (ROOT / "scripts" / f"{script}.sh").read_text().splitlines() if line[:2] != "# "]
    assert lines == ["#!/usr/bin/env bash", "set -euo pipefail",
                     'source "$(dirname "${BASH_SOURCE[0]}")/_usage.sh"', CALLS[script][0]]
    kind, recipe = CALLS[script].groups()
    shots = ["--shots", "16"] if kind == "few_shot" else []
    commands = expanded("python", "tools/sweep.py", "--recipe", recipe, "--datasets", "digits", *shots, "OPTIM.LR",
                        "0.5")
    trainers = of(commands, "--trainer")
    assert trainers[-1] == load_recipe(recipe).trainer and set(trainers[:-1]) <= {"ZeroshotCLIP", trainers[-1]}


def test_the_scripts_call_recipes_that_there_are():
    assert len(CALLS) >= 50 and {call[2] for call in CALLS.values()} <= {path.stem for path in RECIPES.glob("*.yaml")}


def test_a_script_expands_to_plain_commands(expanded):
    commands = expanded("bash", "scripts/coop.sh", "digits", "16", "--dry-run", "OPTIM.LR", "0.5")
    assert [c[1] for c in commands] == ["tools/train.py"] * 4
    assert of(commands, "--trainer") == ["ZeroshotCLIP"] + ["CoOp"] * 3
    assert of(commands, "--seed") == ["1", "1", "2", "3"]
    assert of(commands[1:], "OPTIM.LR") == ["0.5"] * 3 and of(commands[1:], "DATASET.NUM_SHOTS") == ["16"] * 3


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_the_tests_say_how_they_are_run(word):
    reply = bash("scripts/test.sh", word)
    assert reply.returncode == 0 and all(word in reply.stdout for word in ("--quick", "-m slow", "minute"))
    files = (ROOT / "scripts" / "test.sh").read_text().partition("QUICK=(")[2].partition(")")[0].split()
    assert len(files) >= 5 and all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize(("words", "trainer"), [
    (["--variant", "cse", "digits", "4"], "DVPcse"), (["digits", "4", "--variant=cls"], "DVPcls")])
def test_dvp_has_two_variants_named_anywhere(words, trainer, expanded):
    commands = expanded("bash", "scripts/dvp.sh", *words)
    assert of(commands, "--trainer") == ["ZeroshotCLIP"] + [trainer] * 3
    assert of(commands[1:], "DATASET.NUM_SHOTS") == ["4"] * 3


def test_another_variant_is_refused_and_the_usage_names_them():
    reply = bash("scripts/dvp.sh", "digits", "4", "--variant", "csx")
    assert reply.returncode == 2 and "got 'csx'" in reply.stderr
    usage = bash("scripts/dvp.sh", "--help").stdout
    assert "--variant  cls (default)" in usage and "scripts/dvp.sh <dataset> <shots>" in usage


@pytest.mark.parametrize("shots", [[], ["16"]])
def test_zeroshot_is_one_command_with_or_without_shots(shots, expanded):
    assert of(expanded("bash", "scripts/zeroshot.sh", "digits", *shots), "--trainer") == ["ZeroshotCLIP"]


def test_scripts_run_from_any_directory_and_read_the_environment(tmp_path):
    reply = bash(ROOT / "scripts" / "dapt.sh", "digits", "1", "--dry-run", cwd=tmp_path, DATA="my data", OUTPUT="/o",
                 SEEDS="0 7")
    commands = [shlex.split(line) for line in reply.stdout.splitlines()]
    assert of(commands, "--seed") == ["1", "0", "7"] and of(commands, "--root") == ["my data"] * 3
    assert all(folder.startswith("/o/") for folder in of(commands, "--output-dir"))
    assert all(Path(c[1]) == ROOT / "tools" / "train.py" for c in commands)
    assert not list(tmp_path.iterdir())


def test_scripts_take_a_folder_of_ones_own_and_a_protocol(tmp_path, expanded):
    own = expanded("bash", "scripts/coop.sh", "--dataset-dir", str(tmp_path / "my set"), "4", "--config", "tiny")
    assert of(own, "--dataset-dir") == [str(tmp_path / "my set")] * 4
    zero = expanded("bash", "scripts/zeroshot.sh", "--dataset-dir", "my set", "--config", "tiny")
    assert of(zero, "--dataset-dir") == ["my set"]
    halves = expanded("bash", "scripts/dapt.sh", "digits", "16", "--protocol", "base2new", SEEDS="1")
    assert [c[-1] for c in halves] == ["base", "new", "base", "new"]
    shifts = expanded("bash", "scripts/dapt.sh", "digits", "16", "--protocol", "dg", "--targets", "shapes", SEEDS="1")
    assert "--eval-only" in shifts[-1] and sum("shapes" in word for word in shifts[-1]) == 2


@pytest.mark.parametrize(("words", "named"), [
    ([], "no dataset was named"), (["digits"], "shots is missing"), (["digits", "sixteen"], "got 'sixteen'"),
    (["digits", "0"], "got '0'"), (["digits", "--dry-run"], "got '--dry-run'")])
def test_a_missing_or_wrong_argument_is_named_with_an_example(words, named):
    reply = bash("scripts/dapt.sh", *words)
    assert reply.returncode == 2 and named in reply.stderr and "Example: bash scripts/dapt.sh digits 16" in reply.stderr
    assert len(reply.stderr.splitlines()) <= 4


def test_help_shows_the_usage():
    reply = bash("scripts/dapt.sh", "digits", "1", "--help")
    assert reply.returncode == 0 and "Usage: bash scripts/dapt.sh <dataset> <shots>" in reply.stdout


def test_an_unknown_dataset_is_told_with_the_nearest():
    reply = bash("scripts/coop.sh", "digts", "16", "--dry-run")
    assert reply.returncode == 2 and "Did you mean digits?" in reply.stderr


@pytest.fixture
def checkout(tmp_path):
    """A copy of scripts and setup.py, so that no .venv is made in the real one; uv is a stand-in that takes notes."""
    shutil.copytree(ROOT / "scripts", tmp_path / "repo" / "scripts")
    shutil.copy(ROOT / "setup.py", tmp_path / "repo")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "uv").write_text(f"""#!/usr/bin/env bash
echo "$@" >> {tmp_path}/notes
case "$1" in
    venv) folder="${{@: -1}}"; mkdir -p "$folder/bin"; cp {tmp_path}/python "$folder/bin/python" ;;
    pip) [ ! -e {tmp_path}/fail ] || {{ echo "no network" >&2; exit 1; }} ;;
esac
""")
    (tmp_path / "python").write_text(f'#!/usr/bin/env bash\nexec {sys.executable} "$@"\n')
    for program in (tools / "uv", tmp_path / "python"):
        program.chmod(0o755)
    return tmp_path


def choose(checkout, **environment):
    """Which interpreter _env.sh picks: the reply, and the notes of the stand-ins."""
    (checkout / "notes").write_text("")
    reply = bash("-c", 'set -euo pipefail; source repo/scripts/_env.sh; echo "$PYTHON"', cwd=checkout,
                 **{"PATH": f"{checkout}/bin:{os.environ['PATH']}", "UV_DEFAULT_INDEX": "none", **environment})
    return reply, (checkout / "notes").read_text()


def test_an_active_environment_with_the_packages_is_used_as_it_is(checkout):
    reply, notes = choose(checkout)
    assert reply.stdout.strip() == f"{sys.prefix}/bin/python" and notes == "" and reply.stderr == ""


def test_without_an_active_environment_one_is_made_once(checkout):
    reply, notes = choose(checkout, VIRTUAL_ENV="")
    venv = checkout / "repo" / ".venv"
    assert reply.stdout.strip() == f"{venv}/bin/python", reply.stderr
    assert "venv -q" in notes and "pip install" in notes and len(reply.stderr.splitlines()) == 2
    again, notes = choose(checkout, VIRTUAL_ENV="")
    assert again.stdout == reply.stdout and "install" not in notes and again.stderr == ""


@pytest.mark.parametrize(("forbidden", "compiled"), [("1", True), ("", False)])
def test_where_python_keeps_no_bytecode_the_packages_come_with_theirs(forbidden, compiled, checkout):
    _, notes = choose(checkout, VIRTUAL_ENV="", PYTHONDONTWRITEBYTECODE=forbidden)
    assert ("--compile-bytecode" in notes) == compiled


def test_an_active_environment_without_the_packages_is_left_alone_and_told(checkout):
    bare = checkout / "bare"
    (bare / "bin").mkdir(parents=True)
    (bare / "bin" / "python").write_text("#!/usr/bin/env bash\necho torch; exit 1\n")
    (bare / "bin" / "python").chmod(0o755)
    before = sorted(bare.rglob("*"))
    reply, _ = choose(checkout, VIRTUAL_ENV=str(bare))
    assert reply.stdout.strip() == f"{checkout}/repo/.venv/bin/python"
    assert f"{bare} stays as it is; it lacks: torch" in reply.stderr and sorted(bare.rglob("*")) == before


def test_an_interrupted_setup_starts_again_and_a_changed_setup_py_is_noticed(checkout):
    (checkout / "fail").touch()
    reply, _ = choose(checkout, VIRTUAL_ENV="")
    assert reply.returncode == 1 and "no network" in reply.stderr and "Run the command again" in reply.stderr
    (checkout / "fail").unlink()
    left_over = checkout / "repo" / ".venv" / "half_unpacked"
    left_over.touch()
    reply, notes = choose(checkout, VIRTUAL_ENV="")
    assert reply.returncode == 0 and "venv -q" in notes and not left_over.exists()
    setup = checkout / "repo" / "setup.py"
    setup.write_text(setup.read_text() + "# one more requirement\n")
    _, notes = choose(checkout, VIRTUAL_ENV="")
    assert "pip install" in notes and "venv -q" not in notes


@pytest.mark.parametrize("extra", ["", "test"])
def test_an_update_that_fails_again_and_again_leaves_the_environment_as_it_is(extra, checkout):
    choose(checkout, VIRTUAL_ENV="")
    own = checkout / "repo" / ".venv" / "a_package_of_the_users"
    own.touch()
    setup = checkout / "repo" / "setup.py"
    before = setup.read_text()
    lacking = before.replace('"test": [', '"test": ["no-such-package>=1.0", ')
    assert lacking != before
    setup.write_text(lacking if extra else before + "# one more requirement\n")
    (checkout / "fail").touch()
    for _ in range(3):
        reply, notes = choose(checkout, VIRTUAL_ENV="", ENV_EXTRA=extra)
        assert reply.returncode == 1 and "Run the command again" in reply.stderr
        assert own.exists() and "venv -q" not in notes
    (checkout / "fail").unlink()
    assert choose(checkout, VIRTUAL_ENV="")[0].returncode == 0 and own.exists()


def test_a_venv_that_was_not_made_here_is_completed_and_never_wiped(checkout):
    own = checkout / "repo" / ".venv" / "a_package_of_the_users"
    (own.parent / "bin").mkdir(parents=True)
    shutil.copy(checkout / "python", own.parent / "bin")
    own.touch()
    (checkout / "fail").touch()
    for _ in range(2):
        assert choose(checkout, VIRTUAL_ENV="")[0].returncode == 1 and own.exists()
    (checkout / "fail").unlink()
    assert choose(checkout, VIRTUAL_ENV="")[0].returncode == 0 and own.exists()
    (own.parent / "bin" / "python").unlink()
    reply, notes = choose(checkout, VIRTUAL_ENV="")
    assert reply.returncode == 1 and "Remove the folder" in reply.stderr and own.exists() and notes == ""


@pytest.mark.skipif(Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists(), reason="this machine has a GPU")
def test_pytorch_for_the_cpu_is_told_where_no_nvidia_driver_is(checkout):
    (checkout / "python").write_text('#!/usr/bin/env bash\n[ "$1" = - ] && exit 0\n'       # the index answers
                                     f'exec {sys.executable} "$@"\n')
    reply, notes = choose(checkout, VIRTUAL_ENV="", UV_DEFAULT_INDEX="")
    assert reply.returncode == 0 and "--index-url https://download.pytorch.org/whl/cpu" in notes
    assert "No NVIDIA driver here" in reply.stderr and "ROCm" in reply.stderr


def test_a_relative_interpreter_serves_scripts_that_go_to_another_folder(checkout):
    reply = bash("-c", 'source repo/scripts/_env.sh; cd /; "$PYTHON" -c "print(1 + 1)"', cwd=checkout, VIRTUAL_ENV="",
                 DASSL_PYTHON="./python")
    assert reply.stdout.strip() == "2", reply.stderr


def test_an_interpreter_of_ones_own_is_taken_or_refused(checkout):
    assert choose(checkout, VIRTUAL_ENV="", DASSL_PYTHON=sys.executable)[0].stdout.strip() == sys.executable
    (checkout / "repo" / "setup.py").write_text('REQUIRES = ["no-such-package>=1.0", "torch>=999"]\nEXTRAS = {}\n')
    reply, _ = choose(checkout, VIRTUAL_ENV="", DASSL_PYTHON=sys.executable)
    assert reply.returncode == 1 and "no-such-package" in reply.stderr and "torch>=999 (has " in reply.stderr


def test_every_script_is_checked_by_bash_itself():
    scripts = sorted((ROOT / "scripts").glob("*.sh")) + [ROOT / ".ci" / "run"]
    assert ROOT / "scripts" / "dapt.sh" in scripts
    for script in scripts:
        assert bash("-n", script).returncode == 0, script
