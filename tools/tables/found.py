"""Finished runs below any folder, found by their results.json and put together into rows.

A run of a sweep is named by its folders, <dataset>/<trainer>/<variant>/seed<n>. Any other is named by its results.json
and the inputs.json beside it: dataset and trainer yaml, shots, classes, the prompts it tests, and the options that it
was given beyond those of its recipe. Folders of runs that have begun and have no result count as missing seeds.
"""
from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from tools import inputs, results
from tools.recipes import CONFIGS, ZEROSHOT, Cell, Recipe, load_recipe

from .published import WITHOUT_EFFECT, add_published, cells_like, same, shipped, variant_rank
from .rows import Row, in_order, row_of

_SHOTS, _CLASSES = "DATASET.NUM_SHOTS", "DATASET.SUBSAMPLE_CLASSES"


@dataclass
class Run:
    """One run folder.

    Attributes:
        record: of results.json, None where it has no accuracy. given: of inputs.json, {} without.
        ended: whether it is finished, with an accuracy or, as TEST.NO_TEST has it, without.
    """

    folder: Path
    record: dict | None
    given: dict
    ended: bool

    @property
    def flags(self) -> dict:
        return self.given.get("flags", {})

    @property
    def opts(self) -> dict:
        return self.given.get("opts", {})

    @property
    def trainer(self) -> str:
        return (self.record or {}).get("trainer") or self.flags.get("trainer", "")

    @property
    def seed(self) -> int:
        named = re.fullmatch(r"seed(-?\d+)", self.folder.name)
        known = (self.record or {}).get("seed", self.flags.get("seed"))
        return int(named[1]) if known is None and named else -1 if known is None else int(known)

    @property
    def shots(self) -> int | None:
        shots = int((self.record or {}).get("shots", self.opts.get(_SHOTS, -1)))
        return None if ZEROSHOT in (self.trainer, *self.folder.parts[-3:-2]) or shots < 1 else shots

    @property
    def of_a_sweep(self) -> bool:
        """Whether the folders' names say what the run is."""
        if len(self.folder.parts) < 4 or self.folder.name != f"seed{self.seed}":
            return False
        return self.folder.parts[-3] == (self.trainer or self.folder.parts[-3])


def scan(*roots: Path, recipes: tuple[Recipe, ...] = ()) -> list[Row]:
    """Rows of every run below the folders, in order.

    Args:
        recipes: asked for published values and variants before those of configs/recipes.
    """
    recipes = (*recipes, *shipped())
    runs = {run.folder: run for root in roots for run in _runs(root)}
    sources = {"/".join(run.folder.parts[-4:]): _dataset(run) for run in runs.values()}
    rows: dict[tuple, Row] = {}
    given: dict[tuple, list[Run]] = {}
    for run in runs.values():
        if run.ended and run.record is None:                    # nothing to show, and nothing that is missing
            continue
        row = _row(run, sources, recipes)
        name = run.folder.name.rstrip("0123456789")             # seeds of one row: mine1, mine2
        key = (run.folder.parent, *(() if run.of_a_sweep else (row.dataset, row.label, row.source, name)))
        keys = ((*key, n) for n in range(len(runs) + 1))
        key = next(k for k in keys if k not in rows or run.seed not in rows[k].seeds)
        given.setdefault(key, []).append(run)
        row = rows.setdefault(key, row)
        row.add(run.seed, run.record)
        row.runs[run.seed] = run.folder
    for key, row in rows.items():
        _published(row, given[key], recipes)
    _tell_apart(list(rows.values()))
    papers = load_recipe("zeroshot").datasets                               # in their order
    return in_order(sorted(rows.values(), key=lambda row: (
        papers.index(row.dataset) if row.dataset in papers else len(papers), variant_rank(row, recipes))))


def _published(row: Row, runs: list[Run], recipes: tuple[Recipe, ...]) -> None:
    """The published value of runs that all have the recipe's settings; else what they have otherwise."""
    cells = [cell for cell in cells_like(row, recipes) if cell.published is not None]
    other = [next(filter(None, (changes(run, cell) for run in runs)), {}) for cell in cells]
    add_published(row, next((cell for cell, change in zip(cells, other) if not change), None), recipes)
    if cells and row.published is None and not row.options:
        row.changed = min(other, key=len)


def changes(run: Run, cell: Cell) -> dict[str, str]:
    """What a run was given, or is set to, other than a recipe's cell has it: KEY -> the run's value."""
    if not run.given:
        return {}
    keys = [key for key in {**cell.opts, **run.opts} if key not in {*WITHOUT_EFFECT, _SHOTS, _CLASSES}]
    other = {key: run.opts.get(key) for key in keys
             if key not in run.opts or key not in cell.opts or not same(run.opts[key], cell.opts[key])}
    if other and None in other.values():                    # left to the yaml, which may have the recipe's value
        config = _config(run.folder)
        other = {key: _at(config, key) if value is None else value for key, value in other.items()}
        other = {key: value for key, value in other.items() if key not in cell.opts or not same(value, cell.opts[key])}
    return {key: str(value) for key, value in other.items()}


def _runs(root: Path) -> list[Run]:
    found = {}
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not {"results.json", inputs.FILE} & set(files):
            continue
        path = Path(os.path.abspath(folder))
        record, given = results.read(path), results.given(path)
        if record is not None and not ({"finished", "metrics"} & set(record)):
            continue                                        # somebody else's results.json
        done = results.accuracy(record) is not None
        if done or given or re.fullmatch(r"seed\d+", path.name):
            ended = bool(record and record.get("finished") and "metrics" in record)
            found[path] = Run(path, record if done else None, given, ended)
    return list(found.values())


def _row(run: Run, sources: dict[str, str], recipes: tuple[Recipe, ...]) -> Row:
    trained = run.flags.get("model_dir", "") if run.flags.get("eval_only") else ""
    source = sources.get(trained) or (trained.split("/")[-4] if trained.count("/") >= 3 else "")
    source = "" if source == _dataset(run) else source
    if run.of_a_sweep:
        row = row_of(run.folder.parent, run.shots)
        row.source = source or row.source
        if run.opts and re.search(r"-[0-9a-f]{8}$", run.folder.parent.name):       # a long name, which was cut
            row.options = _own_options(run, row, recipes)
    else:
        row = _row_by_contents(run, source, recipes)
    if run.record and run.record.get("split", "test") != "test":
        row.where = f"on {run.record['split']}"
    return row


def _row_by_contents(run: Run, source: str, recipes: tuple[Recipe, ...]) -> Row:
    files = [Path(name) for name in run.given.get("files", {})]
    yamls = [f.stem for f in files if f.parts[-2:-1] != ("datasets",) and f.suffix in (".yaml", ".yml")]
    classes = (run.record or {}).get("classes", run.opts.get(_CLASSES, "all"))
    row = Row(_dataset(run), run.trainer, "", run.shots, folder=run.folder.parent,
              classes="" if classes == "all" else classes, base=yamls[0] if yamls else "", source=source)
    row.options = _own_options(run, row, recipes)
    tag = next((cell.tag for cell in cells_like(row, recipes) if cell.tag.startswith(("@transfer", "@from"))
                and not set(changes(run, cell)) - set(row.options)), "")
    suffix = ",".join(f"{key}={value}" for key, value in sorted(row.options.items()))
    row.config = "-".join(filter(None, [row.base + tag, suffix])) if run.given else run.folder.name
    return row


def _own_options(run: Run, row: Row, recipes: tuple[Recipe, ...]) -> dict[str, str]:
    """What was set other than in the recipe, or the options that were given where there is no recipe."""
    options = {key: value for key, value in run.opts.items() if key not in {*WITHOUT_EFFECT, _SHOTS, _CLASSES}}
    found = min((changes(run, cell) for cell in cells_like(row, recipes)), key=len, default=options)
    return {key: value for key, value in found.items() if value != "None"}             # what nobody recorded


def _dataset(run: Run) -> str:
    """The name of the dataset's yaml, as in a sweep; of the user's own images that of their folder."""
    if run.of_a_sweep:
        return run.folder.parts[-4]
    if "dataset_dir" in run.flags:
        return inputs.name_of(run.flags["dataset_dir"])
    for name in run.given.get("files", {}):
        if Path(name).parts[-2:-1] == ("datasets",):
            return Path(name).stem
    name = (run.record or {}).get("dataset", "")
    for path in sorted((CONFIGS / "datasets").glob("*.yaml")):
        if re.search(rf"""^\s*NAME:\s*["']?{re.escape(name)}["']?\s*$""", path.read_text(encoding="utf-8"), re.M):
            return path.stem
    return name


def _tell_apart(rows: list[Row]) -> None:
    """Rows that would read the same say in which folder of results they lie, and with them all others of these."""
    alike: dict[tuple, list[Row]] = {}
    for row in rows:
        alike.setdefault((row.label, row.source), []).append(row)
    places = {id(row): _place(row) for row in rows}
    twice = [own for own in alike.values() if len(own) > 1]
    if not twice:
        return
    among = {places[id(row)] for own in twice for row in own}
    common = os.path.commonpath(among)
    common = os.path.dirname(common) if Path(common) in among else common
    for row in rows:
        if (place := places[id(row)]) in among:
            own = alike[(row.label, row.source)]
            if len({places[id(other)] for other in own}) < len(own):        # by hand, one beside the other
                place = str(next(iter(row.runs.values()))).rstrip("0123456789" * (len(row.runs) > 1))
            row.where = " ".join(filter(None, [row.where, f"in {os.path.relpath(place, common)}"]))


def _place(row: Row) -> Path:
    """The folder of results of a sweep's row, else the folder that its runs lie in."""
    return row.folder.parents[2] if row.of_a_sweep else row.folder


def _config(folder: Path) -> dict:
    path = folder / "config.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _at(config: dict, key: str):
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config
