"""CLIP's weights and the datasets that are on this machine."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tools.checkup import NOTE, PROBLEM, Finding


def weights() -> Iterator[Finding]:
    """The embedded model, and OpenAI's files, each read to its end and compared with its published sha256."""
    from clip.backbones import BACKBONES
    from clip.tiny import TINY_FILE
    from clip.weights import cache_folders, file_sha256, find

    if not TINY_FILE.is_file():
        yield Finding("weights", f"the embedded model is missing: no {TINY_FILE}", PROBLEM,
                      "get the checkout again, with all its files")
    found = {name: path for name, row in BACKBONES.items() if (path := find(row))}
    damaged = {name: path for name, path in found.items() if file_sha256(path) != BACKBONES[name].sha256}
    for name, path in damaged.items():
        yield Finding("weights", f"{path} is not {name}'s published file: cut, or another one", PROBLEM,
                      f"remove {path} and run again, which fetches it; or put the right file there")
    places = " and ".join(map(str, cache_folders()))
    whole = [name for name in found if name not in damaged]
    if whole:
        yield Finding("weights", f"{', '.join(whole)}; and the embedded model, tiny", short=f"tiny, {', '.join(whole)}")
    else:
        offline = os.environ.get("DASSL_OFFLINE") == "1"
        yield Finding("weights", f"none of OpenAI's in {places}; the embedded model, tiny, is there", NOTE,
                      "the first run of a recipe fetches what it needs" if not offline else
                      "unset DASSL_OFFLINE to let runs fetch them, or put the files there", "tiny (embedded)")


def datasets(root: Path) -> Iterator[Finding]:
    """Which datasets are below `root`; incomplete ones by name."""
    from datasets.cards import CARDS
    from datasets.inspection import state_of
    from tools.running.datasets import yaml_names

    states = {stem: state_of(card, root / card.folder) for stem, name in yaml_names().items()
              if (card := CARDS.get(name))}
    present = [stem for stem, state in states.items() if state.startswith("present")]
    drawn = [stem for stem in yaml_names() if stem not in states]
    text = f"{', '.join(present) or 'no benchmark'} in {root}; drawn by the project itself: {', '.join(drawn)}"
    short = ", ".join([*present, f"{len(drawn)} that the project draws"])
    if present:
        yield Finding("datasets", text, short=short)
    else:
        yield Finding("datasets", text, NOTE, "DATA or --root names their folder; python tools/data.py get NAME "
                      "fetches one, --dataset-dir takes images of your own", short)
    for stem, state in states.items():
        if state.startswith("incomplete"):
            yield Finding("datasets", f"{stem} is {state}", NOTE, f"python tools/data.py get {stem}")
