"""Write a new trainer that works: its file, its configs and its test, to change into what you have in mind."""
from __future__ import annotations

import argparse
import ast
import builtins
import keyword
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from dassl.errors import UserError  # noqa: E402
from tools import command, copied_trainer  # noqa: E402
from tools.checkout import IS_CHECKOUT  # noqa: E402

TEMPLATES = ROOT / "tools" / "templates"
LIKE = {"coop": "CoOp", "vpt": "VPT", "dapt": "DAPT", "pixel": "AR"}       # templates, and whose settings they take


def parser() -> argparse.ArgumentParser:
    p = command.parser("new_trainer", __doc__)
    p.add_argument("name", metavar="NAME", help="as the paper writes it; the class's name and that of --trainer")
    p.add_argument("--like", choices=[*LIKE, *sorted(set(copied_trainer.methods()) - set(LIKE))], metavar="NAME",
                   default="coop", help="what to start from, see below (default: coop)")
    p.add_argument("--source", default="unpublished", help='where it comes from, e.g. "Title (Authors, Venue Year)"')
    p.add_argument("--dry-run", action="store_true", help="print the files instead of writing them")
    return p


def files_of(name: str, like: str, source: str = "unpublished") -> dict[Path, str]:
    """Path below the checkout -> content."""
    if like not in LIKE:
        return copied_trainer.copied(name, like, source)
    base, module = LIKE[like], name.lower()

    def filled(template: str) -> str:
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        origin = textwrap.fill(f"Source: {source}", 119)
        for key, value in {"@NAME@": name, "@SECTION@": name.upper(), "@SOURCE@": origin}.items():
            text = text.replace(key, value)
        return text

    configs = {Path("configs", "trainers", name, variant): _config(base, name, variant)
               for variant in ("tiny.yaml", "vit_b16.yaml")}
    return {Path("trainers", f"{module}.py"): filled(f"{like}.py.txt"), **configs,
            Path("tests", f"test_{module}.py"): filled(f"{like}.test.txt")}


def _config(base: str, name: str, variant: str) -> str:
    """The other trainer's yaml without its own section and remarks at the top."""
    text = (ROOT / "configs" / "trainers" / base / variant).read_text(encoding="utf-8")
    body = re.sub(r"\nTRAINER:\n(  .*\n?)*", "", re.sub(r"\A(#.*\n)+", "", text))
    where = "the embedded CLIP (32 x 32 images)" if variant == "tiny.yaml" else "ViT-B/16"
    return (f"# {name} on {where}.\n# Settings to start from, those of {base}; choose yours on the validation split.\n"
            f"{body}")


def check(name: str, like: str, source: str) -> None:
    """Refuse a name that cannot be a class, or that is taken.

    Raises:
        UserError: so, or a source that would end the docstring; no checkout to write into.
    """
    if not IS_CHECKOUT:
        raise UserError("new-trainer writes into a checkout, and this is an installed package.\n"
                        "Clone the repository, or write a file anywhere and name it with --plugin.")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{1,39}", name) or {name, name.lower()} & {*keyword.kwlist}:
        raise UserError("The name of a trainer is that of a Python class: 2 to 40 letters and digits, a letter first; "
                        f"got {name!r}.")
    if '"""' in source or "\\" in source or "\n" in source or not source.strip():
        raise UserError(f"--source must be one line of text for a docstring, without backslashes, got {source!r}.")
    code = (TEMPLATES / f"{like}.py.txt").read_text().replace("@", "_") if like in LIKE else \
        copied_trainer.copied("_", like, "")[Path("trainers", "_.py")]
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    if name in used or hasattr(builtins, name):
        raise UserError(f"{name} has a meaning of its own in a trainer's file; choose another name.")
    _check_registered(name)
    for path in (*files_of(name, like), Path("trainers", name.lower()), Path("configs", "trainers", name)):
        if (ROOT / path).exists():
            raise UserError(f"{path} exists; choose another name, or remove it first.")


def _check_registered(name: str) -> None:
    from dassl.config import get_cfg_default
    from dassl.engine import TRAINER_REGISTRY
    from dassl.engine.plugins import extend_all
    from tools import train

    cfg = get_cfg_default()
    extend_all(cfg, train.register())
    for known in TRAINER_REGISTRY.registered_names():
        if known.lower() == name.lower():
            raise UserError(f"{known} is a trainer already, of {TRAINER_REGISTRY.get(known).__module__}; choose "
                            "another name (upper and lower case do not count).")
    if name.upper() in cfg.TRAINER:
        raise UserError(f"The config has a section TRAINER.{name.upper()} already, of another trainer; choose another "
                        "name.")


def write(files: dict[Path, str]) -> None:
    """All files or none."""
    made: list[Path] = []
    try:
        for path, text in files.items():
            folder = ROOT / path.parent
            if not folder.exists():
                folder.mkdir(parents=True)
                made.append(folder)
            with open(ROOT / path, "x", encoding="utf-8") as file:
                made.append(ROOT / path)
                file.write(text)
    except BaseException:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink()
        raise


def make(args: argparse.Namespace) -> None:
    check(args.name, args.like, args.source)
    files = files_of(args.name, args.like, args.source)
    if args.dry_run:
        print("\n".join(f"--- {path}\n{text}" for path, text in files.items()), end="")
        return
    write(files)
    print(next_steps(args.name, files), end="")


def next_steps(name: str, files: dict[Path, str]) -> str:
    module = name.lower()
    return f"""Wrote {', '.join(map(str, files))}.

Check it (these tests pass now):
  python -m pytest -q tests/test_{module}.py tests/test_every_trainer.py tests/test_layers.py -k "{name} or layers"
Train it:
  python tools/train.py --trainer {name} --seed 1 --output-dir output/{module} --config-file \\
      configs/trainers/{name}/tiny.yaml --dataset-config-file configs/datasets/digits.yaml DATASET.NUM_SHOTS 16
Make it yours: build says what is learned, loss what is minimised. trainers/README.md has the bricks and hooks.
"""


cli = command.entry(parser, make)


if __name__ == "__main__":
    sys.exit(cli())
