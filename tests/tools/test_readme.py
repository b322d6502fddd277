"""README and guides: bash and the parsers read their commands, their links lead somewhere, their trainer trains."""
import re
import shlex
from pathlib import Path

import pytest

from tools import train
from tools.runs.recipe import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = "".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
                 for name in ("methods", "protocols", "data", "results"))
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT + GUIDES, re.DOTALL)
COMMANDS = [list(words) for words in dict.fromkeys(
    tuple(shlex.split(line, comments=True)) for language, block in BLOCKS if language == "bash"
    for line in block.replace("\\\n", " ").splitlines())]


def test_the_readme_still_has_its_commands_and_is_short():
    assert len(COMMANDS) >= 8 and sum(word[:1] == ["python"] for word in COMMANDS) >= 2
    assert len(TEXT.splitlines()) <= 250


def test_every_link_of_the_readme_and_the_guides_leads_to_a_file():
    pages, links = [ROOT / "README.md", ROOT / "trainers" / "README.md", *(ROOT / "docs").glob("*.md")], []
    for page in pages:
        links += [(page, link) for link in re.findall(r"(?<!!)\[[^\]]*\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
                  if not link.startswith(("https://", "http://"))]
    assert len(links) >= 20
    assert not [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("words", [c for c in COMMANDS if any("scripts/" in w or "sweep.py" in w for w in c)
                                   and "scripts/test.sh" not in c], ids=" ".join)
def test_a_command_of_the_readme_expands_to_runs(words, expanded):
    given = {}
    while "=" in words[0]:
        name, _, given[name] = words[0].partition("=")
        words = words[1:]
    commands = expanded(*words, **given)
    assert commands and all(Path(command[1]).name == "train.py" for command in commands)


def test_the_trainer_of_the_readme_learns_on_digits(tmp_path):
    source = next(block for language, block in BLOCKS if language == "python" and "TRAINER_REGISTRY" in block)
    code = [line for line in source.splitlines()[1:] if line.strip() and not line.startswith(("import", "from"))]
    assert len(code) <= 10                                        # "in ten lines" counts what is not an import
    (tmp_path / "mine.py").write_text(source)
    words = next(c for c in COMMANDS if "mine.py" in c)[2:]
    words[words.index("mine.py")] = str(tmp_path / "mine.py")
    words[words.index("output/mine")] = str(tmp_path / "run")
    args = train.parser().parse_args([*words, "OPTIM.MAX_EPOCH", "2", "DATASET.ROOT", str(tmp_path)])
    train.main(args)
    assert (tmp_path / "run" / "results.json").is_file()
    assert list(Path(tmp_path / "run" / "prompt_learner").glob("model.pth.tar-2"))


def test_the_documented_environment_variables_are_those_that_the_code_reads():
    told = set(re.findall(r"^\| `([A-Z_]+)` \|", SETTINGS, re.MULTILINE))
    rooms = ("clip", "dassl", "datasets", "scripts", "tools", "trainers")
    sources = "\n".join(path.read_text(encoding="utf-8") for room in rooms
                        for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".sh"))
    read = set(re.findall(r"""environ(?:\.get\(|\[)["']([A-Z_]+)["']""", sources))
    others = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "PYTHONPATH", "TERM", "SUBMITIT_EXECUTOR",     # set by other programs
              "SLURM_JOB_ID", "SBATCH_PARTITION"}
    assert len(read & told) >= 5 and read <= told | others
    assert all(re.search(rf"""["']{name}["']|\$\{{{name}[:}}]""", sources) for name in told), told
