"""The list of registered trainers and datasets: name, module and paper."""
from __future__ import annotations

import argparse
import re
import sys

from tools.checkout import own_packages_first, register


def show(args: argparse.Namespace) -> None:
    """Print name, module and paper of everything registered."""
    own_packages_first()
    from tools.running.foreign import code_of_others

    with code_of_others(args.allow_cpu_shim):
        register(args.plugin, args.replace)
    from tabulate import tabulate

    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY
    from dassl.engine.plugins import place

    for title, registry in (("trainer", TRAINER_REGISTRY), ("dataset", DATASET_REGISTRY)):
        rows = [(name, place(cls), _paper(cls)) for name in sorted(registry.registered_names())
                for cls in [registry.get(name)]]
        print(tabulate(rows, headers=[title, "module", "paper"]), end="\n\n")
        if later := [name for name in registry.later if name not in registry]:
            print(f"Dassl's, loaded when they are named: {', '.join(sorted(later))}\n")


def _paper(cls: type) -> str:
    """The work that the class's, or else its module's, docstring names under Source; a dataset's home page."""
    if card := getattr(cls, "card", None):
        return card.home
    for text in (cls.__doc__, sys.modules[cls.__module__].__doc__):
        if found := re.search(r"Source:\s*(.+?\)|[^.;]+)", text or "", re.DOTALL):
            return " ".join(found.group(1).split())
    return ""
