"""The papers' tables: which rows of runs become which lines and columns.

shots: methods x shots, a block per dataset and one of averages.
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

from .grid import Grid
from .rows import Row, harmonic, harmonic_row, kind_of_transfer, mean

NAMES = ("shots", "fewshot", "methods", "base2new", "cross", "dg", "robust", "lodo", "matrix", "ablation")
UNDER = "@under_"                       # of tools.runs.protocols.attack_tag


def build(rows: list[Row], names: tuple[str, ...] | None = None) -> list[Grid]:
    """The tables of these names, or those that the rows make a table of."""
    asked = names is not None
    makers: dict[str, Callable[[], list[Grid]]] = {
        "shots": lambda: shots(rows, asked), "fewshot": lambda: fewshot(rows, asked),
        "methods": lambda: methods(rows, asked), "ablation": lambda: ablation(rows, asked),
        "base2new": lambda: base2new(rows), "robust": lambda: robust(rows), "lodo": lambda: lodo(rows),
        "matrix": lambda: matrix(rows), "cross": lambda: transfer(rows, "cross"), "dg": lambda: transfer(rows, "dg")}
    return [grid for name in names or NAMES for grid in makers[name]()]


def protocol_of(row: Row) -> str:
    """The protocol a row belongs to: one of NAMES but "methods" and "shots"."""
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


def shots(rows: list[Row], asked: bool = True) -> list[Grid]:
    """Methods x shots; unasked only where several methods have several numbers of shots."""
    rows = _plain(rows)
    few = [row for row in rows if row.shots is not None]
    numbers = sorted({row.shots for row in few})
    if not few or (not asked and (len(numbers) < 2 or len({method(row) for row in few}) < 2)):
        return []
    rows = [row for row in rows if row.shots is not None or any(row.is_zero_shot_of(other) for other in few)]
    names = method_names(rows)
    grid = Grid("shots", f"Accuracy by shots per class{_yamls(rows)}", ["dataset", "method", *map(_shots, numbers)])
    datasets, lines = _order(few), {}
    for dataset in datasets:
        for key, own in _by([row for row in rows if row.dataset == dataset], method).items():
            of = {row.shots: row for row in own}
            line = lines.setdefault(key, {})[dataset] = [of.get(n, of.get(None)) for n in numbers]
            grid.add([dataset, names[key]], line, bool(grid.lines) and grid.lines[-1].block != dataset, dataset)
    for number, (key, own) in enumerate(lines.items() if len(datasets) > 1 else ()):
        columns = list(zip(*(own.get(dataset, [None] * len(numbers)) for dataset in datasets)))
        means, published = ([mean([getattr(row, what) if row else None for row in column]) for column in columns]
                            for what in ("mean", "published"))
        if any(value is not None for value in means):
            grid.add_numbers([f"average of {len(datasets)}", names[key]], means, published, not number)
    grid.compare_lines()
    return [grid]


def fewshot(rows: list[Row], asked: bool = True) -> list[Grid]:
    """Datasets x shots, per method; unasked only for methods with several numbers of shots."""
    rows, found = _plain(rows), []
    names = method_names(rows)
    for key, own in _by(rows, method).items():
        numbers = sorted({row.shots for row in own if row.shots is not None})
        if own[0].trainer == ZEROSHOT or not numbers or (len(numbers) < 2 and not asked):
            continue
        zero = {r.dataset: r for r in rows if r.is_zero_shot_of(own[0])}
        zero = {r.dataset: zero[r.dataset] for r in own if r.dataset in zero}
        columns: list[int | None] = [*([None] if zero else []), *numbers]
        cells = {(r.dataset, r.shots): r for r in [*zero.values(), *own]}
        head = ["dataset", *(_shots(n) for n in columns)]
        grid = Grid("fewshot", f"Few-shot accuracy of {names[key]}{_yamls(own)}", head)
        for dataset in _order(own):
            grid.add([dataset], [cells.get((dataset, n)) for n in columns])
        grid.add_average()
        found.append(grid)
    return found


def methods(rows: list[Row], asked: bool = True) -> list[Grid]:
    """Methods x datasets, per number of shots; unasked only where there is something to compare, or nothing else."""
    rows, found = _plain(rows), []
    names = method_names(rows)
    numbers = sorted({row.shots for row in rows if row.shots is not None}) or [None]
    for number in numbers:
        here = [row for row in rows if row.shots == number]
        here = [row for row in rows if row.trainer == ZEROSHOT and row.shots != number
                and row.dataset in {r.dataset for r in here}] + here
        if not here or (not asked and len(numbers) > 1 and len({method(r) for r in here if r.shots == number}) < 2):
            continue
        datasets = _order(here)
        title = "Accuracy without training" if number is None else f"Accuracy at {_shots(number)} per class"
        grid = Grid("methods", title + _yamls(here), ["method", *datasets])
        order = list(_by(rows, method))                                     # as the rows are in
        for key, own in sorted(_by(here, method).items(), key=lambda item: order.index(item[0])):
            of = {row.dataset: row for row in own}
            grid.add([names[key]], [of.get(d) for d in datasets])
        grid.add_column_of_averages(1)
        grid.compare_lines()
        found.append(grid)
    return found


def base2new(rows: list[Row]) -> list[Grid]:
    rows, found = [row for row in rows if row.classes in ("base", "new")], []
    names = method_names(rows)
    for number in sorted({row.shots for row in rows if row.shots is not None}) or ([None] if rows else []):
        here = [row for row in rows if row.shots == number or row.trainer == ZEROSHOT]
        title = f"From base to new classes{'' if number is None else f', {_shots(number)} per class'}"
        grid = Grid("base2new", title + _yamls(here), ["dataset", "method", "base", "new", "H"], ranked=True)
        triples: dict[tuple, dict[str, list[Row | None]]] = {}
        datasets = _order([r for r in here if r.shots == number])
        for dataset in datasets:
            for n, (key, own) in enumerate(_by([r for r in here if r.dataset == dataset], method).items()):
                half = {row.classes: row for row in own}
                base, new = half.get("base"), half.get("new")
                triple = [base, new, harmonic_row(base, new) if base and new else None]
                triples.setdefault(key, {})[dataset] = triple
                grid.add([dataset, names[key]], triple, bool(grid.lines) and not n, dataset)
        complete = {key: own for key, own in triples.items() if len(own) == len(datasets) > 1}
        for n, (key, own) in enumerate(complete.items()):
            halves, published = ([mean([getattr(triple[i], what) if triple[i] else None for triple in own.values()])
                                  for i in (0, 1)] for what in ("mean", "published"))
            grid.add_numbers([f"average of {len(datasets)}", names[key]], [*halves, harmonic(*halves)],
                             [*published, harmonic(*published)], not n)
        grid.notes.append("H: harmonic mean of the means of base and new classes, and for the average of the averages, "
                          "as in CoCoOp, Table 1; ± is over the H of each seed")
        found.append(grid)
    return found


def transfer(rows: list[Row], name: str) -> list[Grid]:
    """Per source and number of shots: methods x source and targets."""
    targets = [row for row in rows if row.source and not row.classes and protocol_of(row) == name]
    found, names = [], method_names(targets)
    for (source, number), here in _by(targets, lambda row: (row.source, row.shots)).items():
        columns = list(dict.fromkeys(row.dataset for row in here))
        known = TARGETS[name].get(source, ())
        columns.sort(key=lambda d: known.index(d) if d in known else len(known))
        title = f"{'Cross-dataset transfer' if name == 'cross' else 'Domain generalisation'}: trained on {source}, " \
                f"{_shots(number)} per class{_yamls(here)}"
        grid = Grid(name, title, ["method", source, *columns], ranked=True)
        zero = {r.dataset: r for r in rows if r.is_zero_shot_of(here[0]) and not r.classes}
        if set(zero) & set(columns):
            grid.add([ZEROSHOT], [zero.get(d) for d in (source, *columns)])
        for key, own in _by(here, method).items():
            of = {row.dataset: row for row in own}
            trained = [r for r in rows if r.dataset == source and r.shots == number and not r.classes and not r.source
                       and method(r) == key]
            trained.sort(key=lambda r: r.tag != "@transfer")
            grid.add([names[key]], [trained[0] if trained else None, *(of.get(d) for d in columns)])
        grid.add_column_of_averages(2, "average of targets")
        found.append(grid)
    return found


def robust(rows: list[Row]) -> list[Grid]:
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
            grid.add([names[key], "clean"], [clean.get(d) for d in datasets], rule=bool(grid.lines))
            for tag in dict.fromkeys(row.tag.split(UNDER)[1] for row in own):
                of = {row.dataset: row for row in own if row.tag.endswith(UNDER + tag)}
                grid.add([names[key], f"under {tag}"], [of.get(d) for d in datasets])
        grid.add_column_of_averages(1)
        grid.notes.append("under pgd-1-255-10: PGD of 10 steps on the whole model, within 1/255 of each pixel")
        found.append(grid)
    return found


def lodo(rows: list[Row]) -> list[Grid]:
    """Per dataset and number of shots: methods x the domains that were left out."""
    found, own = [], [row for row in rows if row.tag.startswith(LODO) and not row.classes]
    names = method_names(own)
    learned = [row for row in own if row.trainer != ZEROSHOT]
    for (dataset, shots), here in _by(learned, lambda row: (row.dataset, row.shots)).items():
        domains = list(dict.fromkeys(row.tag for row in here))
        title = f"Each domain of {dataset} left out of training, {'all images' if shots is None else _shots(shots)}"
        grid = Grid("lodo", title + _yamls(here), ["method", *(tag.removeprefix(LODO) for tag in domains)],
                    ranked=True)
        zero = [row for row in own if row.dataset == dataset and row.is_zero_shot_of(here[0])]
        for key, line in _by([*zero, *here], method).items():
            of = {row.tag: row for row in line}
            grid.add([names[key]], [of.get(tag) for tag in domains])
        grid.add_column_of_averages(1)
        found.append(grid)
    return found


def matrix(rows: list[Row]) -> list[Grid]:
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
        grid.add(["nothing"], [plain.get(target) for target in targets])
        for source in sources:
            grid.add([source], [plain.get(target) if source == target else of.get((source, target))
                                 for target in targets])
        grid.add_column_of_averages(1)
        found.append(grid)
    return found


def ablation(rows: list[Row], asked: bool = True) -> list[Grid]:
    """Variants x datasets, the recipe's or else the default first.

    Unasked only where a recipe names variants and one of them but the full method is there.
    """
    rows = [row for row in rows if not row.classes and not row.source and not row.tag]
    found = []
    for (trainer, _, number, words), here in _by(rows, lambda row: (
            row.trainer, row.base, row.shots, row.words)).items():
        named = any(variant_options(row) for row in here)
        options = _by(here, lambda row: (tuple(sorted(row.options.items())), row.where))
        if len(options) < (1 if named else 2) or not (named or asked) or trainer == ZEROSHOT:
            continue
        common = dict(set.intersection(*(set(key) for key, _ in options)))
        order = list(dict.fromkeys(row.variant for row in here))
        lines = [(order.index(own[0].variant), len(own[0].options), _label(own[0], common), own)
                 for own in options.values()]
        datasets = _order(here)
        title = f"Ablation of {trainer}{'' if number is None else f' at {_shots(number)} per class'}{_yamls(here)}"
        title += "".join(f", {k} {v}" for k, v in sorted(common.items())) + (f", {words}" if words else "")
        grid = Grid("ablation", title, ["variant", *datasets], ranked=True)
        for _, _, label, own in sorted(lines, key=lambda line: line[:3]):
            of = {row.dataset: row for row in own}
            grid.add([label], [of.get(d) for d in datasets])
        grid.add_column_of_averages(1)
        if len(lines) > 1:
            grid.add_gains()
        found.append(grid)
    return found


def _plain(rows: list[Row]) -> list[Row]:
    """Trained and tested on all classes of one dataset; variants of an ablation have a table of their own."""
    return [r for r in rows if not r.classes and not r.source and not r.tag and not variant_options(r)]


def method(row: Row) -> tuple:
    """What makes two rows the same method: trainer, trainer yaml, options, words; and where it lies, if that tells."""
    return row.trainer, row.base, tuple(sorted(row.options.items())), " ".join(filter(None, [row.words, row.where]))


def _yamls(rows: list[Row]) -> str:
    """The trainer yaml of all these rows, which names their backbone; of several it is given with each method."""
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
        names[key] = " ".join(filter(None, [*words, key[3]]))
    return names if len(set(names.values())) == len(names) else {
        key: " ".join(filter(None, [key[0], key[1], *(f"{k}={v}" for k, v in key[2]), key[3]])) for key in of}


def _label(row: Row, common: dict) -> str:
    """Of a line of an ablation: the recipe's name for it, and the options that are neither in it nor in all lines."""
    named = variant_options(row)
    rest = {k: v for k, v in row.options.items() if k not in named and k not in common}
    words = [row.variant] if row.variant else [] if rest else ["default"]
    return " ".join(filter(None, [", ".join([*words, *(f"{k.split('.')[-1]}={v}" for k, v in sorted(rest.items()))]),
                                  row.where]))


def _by(rows: list[Row], key: Callable) -> dict:
    groups: dict = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _order(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.dataset for row in rows))


def _shots(number: int | None) -> str:
    return "zero-shot" if number is None else f"{number} shot{'s' * (number > 1)}"
