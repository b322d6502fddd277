"""A new trainer that begins as a copy of one that is there: its file, configs and test, under another name."""
from __future__ import annotations

import ast
import re
import textwrap
from functools import lru_cache
from pathlib import Path

from tools.checkout import ROOT

_REGISTERED = re.compile(r"^@TRAINER_REGISTRY\.register\(.*\)\nclass (\w+)\(", re.MULTILINE)
_SECTION = re.compile(r"cfg\.TRAINER\.(\w+) = CfgNode\(\)")
_TEST = '''"""@NAME@ begins as @BASE@, which this test says until you change it: then test your own formula here."""
import torch

from dassl.engine import build_trainer


def test_it_begins_as_what_it_was_copied_from(make_cfg, tmp_path):
    scores = []
    for name in ("@BASE@", "@NAME@"):
        trainer = build_trainer(make_cfg(name, output=tmp_path / name))
        trainer.set_model_mode("eval")
        with torch.no_grad():
            scores.append(trainer.model_inference(next(iter(trainer.test_loader))["img"]))
    assert torch.equal(*scores)
'''


@lru_cache
def methods() -> dict[str, str]:
    """{file in trainers/ without its ending: the trainer in it}, of files that hold one trainer with a section."""
    found = {}
    for path in sorted((ROOT / "trainers").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if len(names := _REGISTERED.findall(text)) == 1 and len(_SECTION.findall(text)) == 1:
            found[path.stem] = names[0]
    return found


def copied(name: str, like: str, source: str) -> dict[Path, str]:
    """Path below the checkout -> content; `like` is one of `methods()`."""
    base, text = methods()[like], (ROOT / "trainers" / f"{like}.py").read_text(encoding="utf-8")
    section = _SECTION.findall(text)[0]

    def renamed(text: str) -> str:
        text = re.sub(rf"TRAINER\.{section}\b", f"TRAINER.{name.upper()}", text)
        return re.sub(rf"\b{base}\b", name, text.replace(f'"{section}"', f'"{name.upper()}"'))

    code = text.split(ast.get_docstring(ast.parse(text), clean=False) + '"""\n', 1)[1]
    code = re.sub(r"(@TRAINER_REGISTRY\.register)\(.*\)", r"\1()", code)
    origin = textwrap.fill(f"Source: {source}. It begins as a copy of {base}, whose file trainers/{like}.py has its "
                           "source and its traps.", 119)
    files = {Path("trainers", f"{name.lower()}.py"): f'"""{name}: {base}, to be changed.\n\n{origin}\n"""\n'
                                                     f"{renamed(code)}"}
    for config in sorted((ROOT / "configs" / "trainers" / base).glob("*.yaml")):
        if config.stem in ("tiny", "vit_b16"):
            body = re.sub(r"\A(#.*\n)+", "", config.read_text(encoding="utf-8"))
            body = re.sub(rf"^(TRAINER:\n  ){section}:", rf"\g<1>{name.upper()}:", body, flags=re.MULTILINE)
            files[Path("configs", "trainers", name, config.name)] = \
                f"# {name}: settings to start from, those of {base}; choose yours on the validation split.\n{body}"
    test = _TEST.replace("@NAME@", name).replace("@BASE@", base)
    return {**files, Path("tests", f"test_{name.lower()}.py"): test}
