"""The papers' tables: which rows of runs become which lines and columns.

fewshot: one table per method, datasets x shots.          methods: one table per number of shots, methods x datasets.
base2new: base, new and H of every dataset and method; H is the harmonic mean of the two means, and that of the average
is the harmonic mean of the averages, as in CoCoOp (Zhou et al., CVPR 2022), Table 1.
robust: clean and attacked accuracies of each method x datasets.
cross, dg: one method per line, the source and its targets; the average is over the targets, without the source.
matrix: the dataset whose prompts training starts from x the dataset that is trained on.
lodo: methods x domains of one dataset, each left out of training and tested.
ablation: variants of one method x datasets; a recipe names them, or else their options do.
"""
from __future__ import annotations

from collections.abc import Callable

from tools.runs.cell import ZEROSHOT
from tools.runs.protocols import LODO, MATRIX, TARGETS
from tools.runs.published import variant_options

from .grid import Grid, add, add_average, add_column_of_averages, add_gains, add_numbers, mean
from .rows import Row, harmonic, harmonic_row, kind_of_transfer

NAMES = ("fewshot", "methods", "base2new", "cross", "dg", "robust", "lodo", "matrix", "ablation")
UNDER = "@under_"                       # of tools.runs.protocols.attack_tag


def build(rows: list[Row], names: tuple[str, ...] | None = None) -> list[Grid]:
    """The tables of these names, or those that the rows make a table of."""
    makers: dict[str, Callable[[list[Row], bool], list[Grid]]] = {
        "fewshot": fewshot, "methods": methods, "base2new": base2new, "cross": _cross, "dg": _dg, "robust": robust,
        "lodo": lodo, "matrix": matrix, "ablation": ablation}
    return [grid for name in names or NAMES for grid in makers[name](rows, names is not None)]


def protocol_of(row: Row) -> str:
    """The protocol a row belongs to: one of NAMES but "methods"."""
    if UNDER in row.tag:
        return "robust"
    if row.classes:
        return "base2new"
    if row.tag.startswith(LODO):
        return "lodo"
    if row.tag.startswith(MATRIX):
        return "matrix"
    if row.source:
        return kind_of_transfer(row)
    return "ablation" if variant_options(row) else "fewshot"


def fewshot(rows: list[Row], asked: bool = True) -> list[Grid]:
    """Datasets x shots, per method; unasked only for methods with several numbers of shots."""
    rows, found = _plain(rows), []
    names = method_names(rows)
    for key, own in _by(rows, method).items():
        shots = sorted({row.shots for row in own if row.shots is not None})
        if own[0].trainer == ZEROSHOT or not shots or (len(shots) < 2 and not asked):
            continue
        zero = {r.dataset: r for r in rows if r.is_zero_shot_of(own[0])}
        zero = {r.dataset: zero[r.dataset] for r in own if r.dataset in zero}
        columns: list[int | None] = [*([None] if zero else []), *shots]
        cells = {(r.dataset, r.shots): r for r in [*zero.values(), *own]}
        head = ["dataset", *(_shots(n) for n in columns)]
        grid = Grid("fewshot", f"Few-shot accuracy of {names[key]}{_yamls(own)}", head)
        for dataset in _order(own):
            line = [cells.get((dataset, n)) for n in columns]
            add(grid, [dataset], line)
        add_average(grid)
        found.append(grid)
    return found


def methods(rows: list[Row], asked: bool = True) -> list[Grid]:
    """Methods x datasets, per number of shots; unasked only where there is something to compare, or nothing else."""
    rows, found = _plain(rows), []
    names = method_names(rows)
    numbers = sorted({row.shots for row in rows if row.shots is not None}) or [None]
    for shots in numbers:
        here = [row for row in rows if row.shots == shots]
        here += [row for row in rows if row.trainer == ZEROSHOT and row.shots != shots
                 and row.dataset in {r.dataset for r in here}]
        if not here or (not asked and len(numbers) > 1 and len({method(r) for r in here if r.shots == shots}) < 2):
            continue
        datasets = _order(here)
        title = "Accuracy without training" if shots is None else f"Accuracy at {_shots(shots)} per class"
        grid = Grid("methods", title + _yamls(here), ["method", *datasets])
        for key, own in sorted(_by(here, method).items(), key=lambda item: item[1][0].trainer != ZEROSHOT):
            of = {row.dataset: row for row in own}
            add(grid, [names[key]], [of.get(d) for d in datasets])
        add_column_of_averages(grid, 1)
        found.append(grid)
    return found


def base2new(rows: list[Row], asked: bool = True) -> list[Grid]:
    rows, found = [row for row in rows if row.classes in ("base", "new")], []
    names = method_names(rows)
    for shots in sorted({row.shots for row in rows if row.shots is not None}) or ([None] if rows else []):
        here = [row for row in rows if row.shots == shots or row.trainer == ZEROSHOT]
        title = f"From base to new classes{'' if shots is None else f', {_shots(shots)} per class'}"
        grid = Grid("base2new", title + _yamls(here), ["dataset", "method", "base", "new", "H"])
        triples: dict[tuple, dict[str, list[Row | None]]] = {}
        datasets = _order([r for r in here if r.shots == shots])
        for dataset in datasets:
            for number, (key, own) in enumerate(_by([r for r in here if r.dataset == dataset], method).items()):
                half = {row.classes: row for row in own}
                base, new = half.get("base"), half.get("new")
                triple = [base, new, harmonic_row(base, new) if base and new else None]
                triples.setdefault(key, {})[dataset] = triple
                add(grid, [dataset, names[key]], triple, rule=bool(grid.lines) and not number)
        complete = {key: own for key, own in triples.items() if len(own) == len(datasets) > 1}
        for number, (key, own) in enumerate(complete.items()):
            halves = [mean([triple[i].mean if triple[i] else None for triple in own.values()]) for i in (0, 1)]
            published = [mean([triple[i].published if triple[i] else None for triple in own.values()]) for i in (0, 1)]
            label = [f"average of {len(datasets)}", names[key]]
            add_numbers(grid, label, [*halves, harmonic(*halves)], [*published, harmonic(*published)], not number)
        grid.notes.append("H: harmonic mean of the means of base and new classes, and for the average of the averages, "
                          "as in CoCoOp, Table 1; ± is over the H of each seed")
        found.append(grid)
    return found


def transfer(rows: list[Row], name: str) -> list[Grid]:
    """Per source and number of shots: methods x source and targets."""
    targets = [row for row in rows if row.source and not row.classes and protocol_of(row) == name]
    found, names = [], method_names(targets)
    for (source, shots), here in _by(targets, lambda row: (row.source, row.shots)).items():
        columns = list(dict.fromkeys(row.dataset for row in here))
        known = TARGETS[name].get(source, ())
        columns.sort(key=lambda d: known.index(d) if d in known else len(known))
        title = f"{'Cross-dataset transfer' if name == 'cross' else 'Domain generalisation'}: trained on {source}, " \
                f"{_shots(shots)} per class{_yamls(here)}"
        grid = Grid(name, title, ["method", source, *columns])
        zero = {r.dataset: r for r in rows if r.is_zero_shot_of(here[0]) and not r.classes}
        if set(zero) & set(columns):
            add(grid, [ZEROSHOT], [zero.get(d) for d in (source, *columns)])
        for key, own in _by(here, method).items():
            of = {row.dataset: row for row in own}
            trained = [r for r in rows if r.dataset == source and r.shots == shots and not r.classes and not r.source
                       and method(r) == key]
            trained.sort(key=lambda r: r.tag != "@transfer")
            add(grid, [names[key]], [trained[0] if trained else None, *(of.get(d) for d in columns)])
        add_column_of_averages(grid, 2, "average of targets")
        found.append(grid)
    return found


def robust(rows: list[Row], asked: bool = True) -> list[Grid]:
    """Methods, clean and under each attack, x datasets; where no run was tested under an attack there is no table."""
    attacked, found = [row for row in rows if UNDER in row.tag], []
    names = method_names(attacked)
    for shots, here in _by(attacked, lambda row: row.shots).items():
        datasets = _order(here)
        what = "without training" if shots is None else f"at {_shots(shots)} per class"
        grid = Grid("robust", f"Clean and attacked accuracy {what}{_yamls(here)}", ["method", "images", *datasets])
        for key, own in _by(here, method).items():
            clean = {r.dataset: r for r in rows if UNDER not in r.tag and method(r) == key and r.shots == shots
                     and (r.dataset, r.source, r.tag) in {(o.dataset, o.source, o.tag.split(UNDER)[0]) for o in own}}
            add(grid, [names[key], "clean"], [clean.get(d) for d in datasets], rule=bool(grid.lines))
            for tag in dict.fromkeys(row.tag.split(UNDER)[1] for row in own):
                of = {row.dataset: row for row in own if row.tag.endswith(UNDER + tag)}
                add(grid, [names[key], f"under {tag}"], [of.get(d) for d in datasets])
        add_column_of_averages(grid, 1)
        grid.notes.append("under pgd-1-255-10: PGD of 10 steps on the whole model, within 1/255 of each pixel")
        found.append(grid)
    return found


def lodo(rows: list[Row], asked: bool = True) -> list[Grid]:
    """Per dataset and number of shots: methods x the domains that were left out."""
    found, own = [], [row for row in rows if row.tag.startswith(LODO) and not row.classes]
    names = method_names(own)
    learned = [row for row in own if row.trainer != ZEROSHOT]
    for (dataset, shots), here in _by(learned, lambda row: (row.dataset, row.shots)).items():
        domains = list(dict.fromkeys(row.tag for row in here))
        title = f"Each domain of {dataset} left out of training, {'all images' if shots is None else _shots(shots)}"
        grid = Grid("lodo", title + _yamls(here), ["method", *(tag.removeprefix(LODO) for tag in domains)])
        zero = [row for row in own if row.dataset == dataset and row.is_zero_shot_of(here[0])]
        for key, line in _by([*zero, *here], method).items():
            of = {row.tag: row for row in line}
            add(grid, [names[key]], [of.get(tag) for tag in domains])
        add_column_of_averages(grid, 1)
        found.append(grid)
    return found


def matrix(rows: list[Row], asked: bool = True) -> list[Grid]:
    """Per method and number of shots: sources x targets; a target that starts from itself is its own run."""
    found, own = [], [row for row in rows if row.tag.startswith(MATRIX) and not row.classes]
    names = method_names(own)
    for (key, shots), here in _by(own, lambda row: (method(row), row.shots)).items():
        plain = {row.dataset: row for row in rows if not row.tag and not row.classes and not row.source
                 and row.shots == shots and method(row) == key}
        targets, sources = _order(here), list(dict.fromkeys(row.tag.removeprefix(MATRIX) for row in here))
        targets.sort(key=lambda target: sources.index(target) if target in sources else len(sources))
        of = {(row.tag.removeprefix(MATRIX), row.dataset): row for row in here}
        amount = "all images" if shots is None else _shots(shots)
        grid = Grid("matrix", f"{names[key]} trained on a target, from another dataset's prompts, {amount}"
                    f"{_yamls(here)}", ["started from", *targets])
        add(grid, ["nothing"], [plain.get(target) for target in targets])
        for source in sources:
            add(grid, [source], [plain.get(target) if source == target else of.get((source, target))
                                 for target in targets])
        add_column_of_averages(grid, 1)
        found.append(grid)
    return found


def ablation(rows: list[Row], asked: bool = True) -> list[Grid]:
    """Variants x datasets. Unasked only where a recipe names variants and one of them but the full method is there."""
    rows = [row for row in rows if not row.classes and not row.source and not row.tag]
    found = []
    for (trainer, _, shots), here in _by(rows, lambda row: (row.trainer, row.base, row.shots)).items():
        named = any(variant_options(row) for row in here)
        options = _by(here, lambda row: tuple(sorted(row.options.items())))
        if len(options) < (1 if named else 2) or not (named or asked):
            continue
        common = dict(set.intersection(*(set(key) for key in options)))
        order = list(dict.fromkeys(row.variant for row in here))
        lines = [(own[0].variant, _label(own[0], common), own) for own in options.values()]
        lines.sort(key=lambda line: (order.index(line[0]), line[1]))
        datasets = _order(here)
        title = f"Ablation of {trainer}{'' if shots is None else f' at {_shots(shots)} per class'}"
        title += _yamls(here) + "".join(f", {k} {v}" for k, v in sorted(common.items()))
        grid = Grid("ablation", title, ["variant", *datasets])
        for _, label, own in lines:
            of = {row.dataset: row for row in own}
            add(grid, [label], [of.get(d) for d in datasets])
        add_column_of_averages(grid, 1)
        if len(lines) > 1:
            add_gains(grid)
        found.append(grid)
    return found


def _cross(rows: list[Row], asked: bool) -> list[Grid]:
    return transfer(rows, "cross")


def _dg(rows: list[Row], asked: bool) -> list[Grid]:
    return transfer(rows, "dg")


def _plain(rows: list[Row]) -> list[Row]:
    """Trained and tested on all classes of one dataset; variants of an ablation have a table of their own."""
    return [r for r in rows if not r.classes and not r.source and not r.tag and not variant_options(r)]


def method(row: Row) -> tuple:
    """What makes two rows the same method: trainer, trainer yaml and options; and where it lies, if that tells."""
    return row.trainer, row.base, tuple(sorted(row.options.items())), row.where


def _yamls(rows: list[Row]) -> str:
    """The trainer yaml of all these rows, which names their backbone; of several it stands with each method."""
    names = {row.base for row in rows}
    return f" ({names.pop()})" if len(names) == 1 and "" not in names else ""


def method_names(rows: list[Row]) -> dict[tuple, str]:
    """Method -> the trainer's name, with what sets it apart from the same trainer's other methods."""
    of = {method(row): row for row in reversed(rows)}
    names = {}
    for key, row in of.items():
        several = len({other[1] for other in of if other[0] == row.trainer}) > 1
        named = variant_options(row)
        words = [row.trainer, row.base * several, row.variant * bool(named)]
        words += [f"{k.split('.')[-1]}={v}" for k, v in key[2] if k not in named]
        names[key] = " ".join(filter(None, [*words, row.where]))
    return names if len(set(names.values())) == len(names) else {
        key: " ".join(filter(None, [key[0], key[1], *(f"{k}={v}" for k, v in key[2]), key[3]])) for key in of}


def _label(row: Row, common: dict) -> str:
    """Of a line of an ablation: the recipe's name for it, and the options that are neither in it nor in all lines."""
    named = variant_options(row)
    rest = {k: v for k, v in row.options.items() if k not in named and k not in common}
    words = [row.variant] if row.variant else [] if rest else ["as it is"]
    return ", ".join([*words, *(f"{k.split('.')[-1]}={v}" for k, v in sorted(rest.items()))])


def _by(rows: list[Row], key: Callable) -> dict:
    groups: dict = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _order(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.dataset for row in rows))


def _shots(number: int | None) -> str:
    return "zero-shot" if number is None else f"{number} shot{'s' * (number > 1)}"
