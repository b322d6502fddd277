"""dassl-prompts: one command with every tool of the checkout."""
import sys

import pytest

from dassl_prompts import commands as dassl_prompts
from tools import command
from tools.runs.cell import ROOT


def test_every_tool_that_is_a_script_is_a_command():
    scripts = {path.stem.replace("_", "-") for path in (ROOT / "tools").glob("*.py")
               if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")}
    assert set(dassl_prompts.COMMANDS) == scripts


def test_a_command_is_its_script_under_its_own_name(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["dassl-prompts"])
    monkeypatch.setattr(command, "called", command.called)
    with pytest.raises(SystemExit) as end:
        dassl_prompts.main(["table", "--help"])
    out = capsys.readouterr().out
    assert end.value.code == 0 and out.startswith("usage: dassl-prompts table ") and "examples:" in out
    with pytest.raises(SystemExit) as end:
        dassl_prompts.main(["parse_test_res", "nowhere"])
    assert end.value.code == 2 and "There is no folder nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [(["tabel"], "Did you mean table?"), (["x"], "Known: train, sweep")])
def test_an_unknown_command_is_refused_with_the_nearest(words, said, capsys):
    assert dassl_prompts.main(words) == 2 and said in capsys.readouterr().err


def test_without_a_command_all_are_listed_and_setup_installs_it(capsys):
    assert dassl_prompts.main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in dassl_prompts.COMMANDS)
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert '"console_scripts": ["dassl-prompts=dassl_prompts.commands:main"]' in setup
