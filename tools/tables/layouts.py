"""The papers' tables: which rows of runs become which lines and columns.

shots: methods x shots, a block per dataset and one of averages.
fewshot: one table per method, datasets x shots.          methods: one table per number of shots, methods x datasets.
base2new: base, new and H of every dataset and method; H is the harmonic mean of the two means, and that of the average
is the harmonic mean of the averages, as in CoCoOp (Zhou et al., CVPR 2022), Table 1.
robust: clean and attacked accuracies of each method x datasets.
cross, dg: one method per line, the source and its targets; the average is over the targets, without the source.
matrix: the dataset whose prompts training starts from x the dataset that is trained on.
lodo: methods x domains of one dataset, each left out of training and tested.
incremental: methods x what the tests after each task say, and accuracy where all classes were learned at once.
ablation: variants of one method x datasets; a recipe names them, or else their options do.

Each layout has its rows and whether it was asked for; unasked it leaves out tables that have nothing to compare.
"""
from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tools.runs.cell import ZEROSHOT, plain
from tools.runs.protocols import ATTACK, IN_TASKS, LODO, MATRIX, TARGETS

from .grid import Grid
from .rows import Row, by, harmonic, harmonic_row, kind_of_transfer, measure_row

UNDER = "@under_"                       # of tools.runs.protocols.attack_tag


def build(rows: list[Row], names: tuple[str, ...] | None = None) -> list[Grid]:
    """The tables of these names, or those that the rows make a table of.

    Accuracies on validation images, as of a search of settings, are shown where there are no others.
    """
    rows = [row for row in rows if row.on_test] or rows
    return [grid for name in names or LAYOUTS for grid in LAYOUTS[name](rows, names is not None)]


def protocol_of(row: Row) -> str:
    """The protocol a row belongs to: one of LAYOUTS but "methods" and "shots"."""
    if UNDER in row.tag:
        return "robust"
    if row.classes:
        return "base2new"
    if row.tag.startswith(LODO):
        return "lodo"
    if row.tag.startswith(MATRIX):
        return "matrix"
    if row.tag.startswith(IN_TASKS):
        return "incremental"
    if row.source:
        return kind_of_transfer(row)
    return "ablation" if row.variant_options else "fewshot"


def shots(rows: list[Row], asked: bool) -> Iterator[Grid]:
    """Methods x shots; unasked only where several methods have several numbers of shots."""
    rows = _plain(rows)
    few = [row for row in rows if row.shots is not None]
    numbers = sorted({row.shots for row in few})
    if not few or (not asked and (len(numbers) < 2 or len(by(few, lambda row: row.method)) < 2)):
        return
    rows = [row for row in rows if row.shots is not None or any(row.is_zero_shot_of(other) for other in few)]
    names, datasets = method_names(rows), datasets_of(few)
    title = f"Accuracy by shots per class{_yamls(rows)}"
    grid = Grid("shots", title, ["dataset", "method"], list(map(_shots, numbers)))
    grid.pivot(((dataset, names[row.method]), None if row.shots is None else _shots(row.shots), row)
               for dataset in datasets for row in rows if row.dataset == dataset)
    grid.add_averages(f"average of {len(datasets)}", len(datasets))
    grid.compare_lines()
    yield grid


def fewshot(rows: list[Row], asked: bool) -> Iterator[Grid]:
    """Datasets x shots, per method; unasked only for methods with several numbers of shots."""
    rows = _plain(rows)
    names = method_names(rows)
    for key, own in by(rows, lambda row: row.method).items():
        numbers = sorted({row.shots for row in own if row.shots is not None})
        if own[0].trainer == ZEROSHOT or not numbers or (len(numbers) < 2 and not asked):
            continue
        datasets = datasets_of(own)
        zero = [row for row in rows if row.is_zero_shot_of(own[0]) and row.dataset in datasets]
        columns = [_shots(number) for number in [*[None] * bool(zero), *numbers]]
        grid = Grid("fewshot", f"Few-shot accuracy of {names[key]}{_yamls(own)}", ["dataset"], columns)
        grid.pivot(((row.dataset,), _shots(row.shots), row) for row in sorted(
            [*zero, *own], key=lambda row: datasets.index(row.dataset)))
        grid.add_averages("average", len(datasets))
        yield grid


def methods(rows: list[Row], asked: bool) -> Iterator[Grid]:
    """Methods x datasets, per number of shots; unasked only where there is something to compare, or nothing else."""
    rows = _plain(rows)
    names = method_names(rows)
    numbers = sorted({row.shots for row in rows if row.shots is not None}) or [None]
    for number in numbers:
        own = [row for row in rows if row.shots == number]
        if not own or (not asked and len(numbers) > 1 and len(by(own, lambda row: row.method)) < 2):
            continue
        zero = [row for row in rows if row.trainer == ZEROSHOT and row.shots != number
                and row.dataset in datasets_of(own)]
        title = "Accuracy without training" if number is None else f"Accuracy at {_shots(number)} per class"
        grid = Grid("methods", title + _yamls([*zero, *own]), ["method"], datasets_of([*zero, *own]))
        grid.pivot(((names[row.method],), row.dataset, row) for row in sorted(
            [*zero, *own], key=lambda row: list(names).index(row.method)))
        grid.add_column_of_averages()
        grid.compare_lines()
        yield grid


def base2new(rows: list[Row], asked: bool) -> Iterator[Grid]:
    """Per number of shots: datasets and methods x base and new classes and their harmonic mean."""
    rows = [row for row in rows if row.classes in ("base", "new")]
    names = method_names(rows)
    for number in sorted({row.shots for row in rows if row.shots is not None}) or ([None] if rows else []):
        here = [row for row in rows if row.shots == number or row.trainer == ZEROSHOT]
        datasets = datasets_of([row for row in here if row.shots == number])
        title = f"From base to new classes{'' if number is None else f', {_shots(number)} per class'}"
        grid = Grid("base2new", title + _yamls(here), ["dataset", "method"], ["base", "new", "H"], ranked=True)
        halves = by(here, lambda row: (row.dataset, names[row.method]))
        for own in halves.values():
            of = {row.classes: row for row in own}
            own += [harmonic_row(of["base"], of["new"])] if len(of) > 1 else []
        grid.pivot((labels, row.classes, row) for dataset in datasets for labels, own in halves.items()
                   if labels[0] == dataset for row in own)
        grid.add_averages(f"average of {len(datasets)}", len(datasets), harmonic)
        grid.notes.append("H: harmonic mean of the means of base and new classes, and for the average of the averages, "
                          "as in CoCoOp, Table 1; ± is over the H of each seed")
        yield grid


def transfer(rows: list[Row], asked: bool, name: str) -> Iterator[Grid]:
    """Per source and number of shots: methods x source and targets."""
    targets = [row for row in rows if row.source and not row.classes and protocol_of(row) == name]
    names = method_names(targets)
    for (source, number), here in by(targets, lambda row: (row.source, row.shots)).items():
        known = TARGETS[name].get(source, ())
        columns = sorted(datasets_of(here), key=lambda d: known.index(d) if d in known else len(known))
        what = "Corrupted test images" if all(plain(row.dataset) == plain(source) for row in here) else \
            "Cross-dataset transfer" if name == "cross" else "Domain generalisation"
        title = f"{what}: trained on {source}, {_shots(number)} per class{_yamls(here)}"
        zero = [row for row in rows if row.is_plain and row.is_zero_shot_of(here[0])]
        zero = zero if any(row.dataset in columns for row in zero) else []
        lines = by(here, lambda row: row.method)
        trained = [row for tag in ("", "@transfer") for row in rows if row.dataset == source and row.shots == number
                   and row.method in lines and row.tag == tag and not row.classes and not row.source]
        grid = Grid(name, title, ["method"], [source, *columns], ranked=True)
        grid.pivot([*(((ZEROSHOT,), row.dataset, row) for row in zero),
                    *(((names[row.method],), row.dataset, row) for row in [*here, *trained])])
        grid.add_column_of_averages("average of targets", 1)
        yield grid


def robust(rows: list[Row], asked: bool) -> Iterator[Grid]:
    """Methods, clean and under each attack, x datasets; where no run was tested under an attack there is no table."""
    attacked = [row for row in rows if UNDER in row.tag]
    names = method_names(attacked)
    for number, here in by(attacked, lambda row: row.shots).items():
        what = "without training" if number is None else f"at {_shots(number)} per class"
        entries = []
        for key, own in by(here, lambda row: row.method).items():
            places = {(row.dataset, row.source, row.tag.split(UNDER)[0]) for row in own}
            clean = [row for row in rows if row.method == key and row.shots == number
                     and (row.dataset, row.source, row.tag) in places]
            entries += [((names[key], "clean"), None, None)]
            entries += [((names[key], "clean"), row.dataset, row) for row in clean]
            for row in own:
                attack = row.cell.opts.get(ATTACK) or row.tag.split(UNDER)[1]
                entries.append(((names[key], f"under {attack}"), row.dataset, row))
        grid = Grid("robust", f"Clean and attacked accuracy {what}{_yamls(here)}", ["method", "images"],
                    datasets_of(here)).pivot(entries)
        grid.add_column_of_averages()
        grid.notes.append("under ATTACK:RADIUS:STEPS; attacks see the whole model, and pixels are in [0, 1]")
        yield grid


def lodo(rows: list[Row], asked: bool) -> Iterator[Grid]:
    """Per dataset and number of shots: methods x the domains that were left out."""
    rows = [row for row in rows if row.tag.startswith(LODO) and not row.classes]
    names = method_names(rows)
    learned = [row for row in rows if row.trainer != ZEROSHOT]
    for (dataset, number), here in by(learned, lambda row: (row.dataset, row.shots)).items():
        title = f"Each domain of {dataset} left out of training, {_amount(number)}{_yamls(here)}"
        zero = [row for row in rows if row.dataset == dataset and row.is_zero_shot_of(here[0])]
        grid = Grid("lodo", title, ["method"], list(by(here, lambda row: row.tag.removeprefix(LODO))), ranked=True)
        grid.pivot(((names[row.method],), row.tag.removeprefix(LODO), row) for row in [*zero, *here])
        grid.add_column_of_averages()
        yield grid


def incremental(rows: list[Row], asked: bool) -> Iterator[Grid]:
    """Per dataset, number of tasks and of shots: methods x accuracy, forgetting and forward transfer."""
    own = [row for row in rows if row.tag.startswith(IN_TASKS) and not row.classes]
    names, measures = method_names(own), ("average_accuracy", "forgetting", "forward_transfer")
    learned = [row for row in own if row.shots is not None]
    for (dataset, tag, number), here in by(learned or own, lambda row: (row.dataset, row.tag, row.shots)).items():
        zero = [row for row in own if row.dataset == dataset and row.tag == tag and row.is_zero_shot_of(here[0])]
        lines = [*(row for row in zero if row not in here), *here]
        title = f"{dataset} in {tag.removeprefix(IN_TASKS)} tasks, {_amount(number)}{_yamls(lines)}"
        together = {row.method: row for row in rows if row.is_plain and row.dataset == dataset
                    and row.shots in (number, None)}
        grid = Grid("incremental", title, ["method"], ["all at once", *(name.replace("_", " ") for name in measures)])
        grid.pivot(((names[row.method],), column, value) for row in lines for column, value in zip(
            grid.columns, [together.get(row.method), *(measure_row(row, name) for name in measures)]))
        grid.notes.append("average accuracy: on all tasks after the last one; forgetting: points lost since a task was "
                          "best; forward transfer: points gained before a task was learned")
        yield grid


def matrix(rows: list[Row], asked: bool) -> Iterator[Grid]:
    """Per method and number of shots: sources x targets; a target that starts from itself is its own run."""
    own = [row for row in rows if row.tag.startswith(MATRIX) and not row.classes]
    names = method_names(own)
    for (key, number), here in by(own, lambda row: (row.method, row.shots)).items():
        plain = {row.dataset: row for row in rows if row.is_plain and row.shots == number and row.method == key}
        of = {(row.tag.removeprefix(MATRIX), row.dataset): row for row in here}
        targets = [name for name in datasets_of(rows) if name in datasets_of(here)]
        sources = sorted(dict.fromkeys(source for source, _ in of),
                         key=lambda name: targets.index(name) if name in targets else len(targets))
        title = f"{names[key]} starting from another dataset's prompts, {_amount(number)}{_yamls(here)}"
        grid = Grid("matrix", title, ["started from"], targets)
        grid.pivot(((source,), target, plain.get(target) if source in ("nothing", target) else of.get((source, target)))
                   for source in ("nothing", *sources) for target in targets)
        grid.add_column_of_averages()
        yield grid


def ablation(rows: list[Row], asked: bool) -> Iterator[Grid]:
    """Variants x datasets, the recipe's or else the default first.

    Unasked only where a recipe names variants and one of them but the full method is there.
    """
    rows = [row for row in rows if row.is_plain]
    for (trainer, _, number, words), here in by(rows, lambda row: (
            row.trainer, row.cell.config, row.shots, row.words)).items():
        named = any(row.variant_options for row in here)
        lines = by(here, lambda row: (tuple(row.options.items()), row.where))
        if len(lines) < (1 if named else 2) or not (named or asked) or trainer == ZEROSHOT:
            continue
        common = dict(set.intersection(*(set(options) for options, _ in lines)))
        order = list(by(here, lambda row: row.variant))
        title = f"Ablation of {trainer}{'' if number is None else f' at {_shots(number)} per class'}{_yamls(here)}"
        title += "".join(f", {k} {v}" for k, v in sorted(common.items())) + (f", {words}" if words else "")
        grid = Grid("ablation", title, ["variant"], datasets_of(here), ranked=True)
        grid.pivot(((_label(row, common),), row.dataset, row) for row in sorted(here, key=lambda row: (
            order.index(row.variant), len(row.options), _label(row, common))))
        grid.add_column_of_averages()
        if len(lines) > 1:
            grid.add_gains()
        yield grid


LAYOUTS = {"shots": shots, "fewshot": fewshot, "methods": methods, "base2new": base2new,
           "cross": partial(transfer, name="cross"), "dg": partial(transfer, name="dg"), "robust": robust,
           "lodo": lodo, "incremental": incremental, "matrix": matrix, "ablation": ablation}


def _plain(rows: list[Row]) -> list[Row]:
    """Plain ones; variants of an ablation have a table of their own."""
    return [row for row in rows if row.is_plain and not row.variant_options]


def datasets_of(rows: list[Row]) -> list[str]:
    return list(by(rows, lambda row: row.dataset))


def method_names(rows: list[Row]) -> dict[tuple, str]:
    """Method -> the trainer's name, with what sets it apart from the same trainer's other methods."""
    yamls = by(rows, lambda row: row.trainer)
    names, whole = {}, {}
    for (trainer, config, options, where), own in by(rows, lambda row: row.method).items():
        named, several = own[0].variant_options, len({row.cell.config for row in yamls[trainer]}) > 1
        words = [trainer, config * several, own[0].variant * bool(named)]
        words += [f"{key.split('.')[-1]}={value}" for key, value in options if key not in named]
        names[own[0].method] = " ".join(filter(None, [*words, where]))
        whole[own[0].method] = " ".join(filter(None, [trainer, config, *(f"{k}={v}" for k, v in options), where]))
    return names if len(set(names.values())) == len(names) else whole


def _yamls(rows: list[Row]) -> str:
    """The trainer yaml of all these rows, which names their backbone; of several it is given with each method."""
    names = {row.cell.config for row in rows}
    return f" ({names.pop()})" if len(names) == 1 and "" not in names else ""


def _label(row: Row, common: dict) -> str:
    """Of a line of an ablation: the recipe's name for it, and the options that are neither in it nor in all lines."""
    rest = {k: v for k, v in row.options.items() if k not in row.variant_options and k not in common}
    words = [row.variant] if row.variant else [] if rest else ["default"]
    return " ".join(filter(None, [", ".join([*words, *(f"{k.split('.')[-1]}={v}" for k, v in rest.items())]),
                                  row.where]))


def _shots(number: int | None) -> str:
    return "zero-shot" if number is None else f"{number} shot{'s' * (number > 1)}"


def _amount(number: int | None) -> str:
    return "all images" if number is None else _shots(number)
