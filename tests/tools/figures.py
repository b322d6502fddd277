"""What tests of figures share: drawing one, finding its parts, reading what stands on it."""
import argparse
import importlib
import json
import re

from tools import plot
from tools.runs.cell import Cell


def figure(name, folder, theme="light", **options):
    """A figure of a run folder; "fewshot" of a folder of results. `theme`: a name, or a Theme."""
    from tools.plotting.style import THEMES, context
    from tools.runs.run import Run

    theme = THEMES.get(theme, theme) if isinstance(theme, str) else theme
    source = selected(folder) if name == "fewshot" else Run(folder)
    with context(theme):
        made = importlib.import_module(f"tools.plotting.{name}").draw(source, theme, **options)
        made.draw_without_rendering()
    return made


def selected(folder, **filters):
    """The rows of a folder of results that filters leave."""
    from tools.tables.found import scan
    from tools.tables.select import FILTERS, select

    return select(scan(folder), argparse.Namespace(**{**dict.fromkeys(FILTERS), **filters}))


def axes(fig, gid):
    return [ax for ax in fig.axes if ax.get_gid() == gid]


def texts(fig):
    """All text that is drawn: matplotlib keeps ticks beyond the ends of an axis and does not draw them."""
    from matplotlib.text import Text

    beyond = {id(label) for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for tick in axis.get_major_ticks()
              if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
              for label in (tick.label1, tick.label2)}
    return [text for text in fig.findobj(Text) if text.get_text().strip() and text.get_visible()
            and id(text) not in beyond]


def refused(argv, capsys):
    assert plot.cli([str(word) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert not out and "Traceback" not in err
    return err


def legible(fig, paper=False):
    """No two texts overlap by more than a hair; in a paper all lie on the page and have 8 points."""
    renderer = fig.canvas.get_renderer()
    found = texts(fig)
    boxes = sorted(((text.get_window_extent(renderer), text.get_text()) for text in found), key=lambda pair: pair[0].x0)
    for i, (box, word) in enumerate(boxes):
        for other, second in boxes[i + 1:]:
            if other.x0 > box.x1:
                break
            across, up = min(box.x1, other.x1) - other.x0, min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across < 1.5 or up < 0.3 * min(box.height, other.height), (word, second)
    assert len(boxes) > 3
    if paper:
        wide, high = fig.bbox.width, fig.bbox.height
        outside = [word for box, word in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > wide or box.y1 > high]
        assert not outside, outside
        assert all(text.get_fontsize() >= 8 for text in found)
        assert not [text for text in fig.texts if text.get_gid()]                  # neither title nor explanation


def write_run(folder, accuracy=None, *, cell=None, given=None, **record):
    """A run folder with results.json, unless `accuracy` is None, and with inputs.json, if anything was given."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = {"cell": cell.as_dict()} if cell else {}
    if given is not None:
        (folder / "inputs.json").write_text(json.dumps({**given, **stored}))
    if accuracy is not None:
        (folder / "results.json").write_text(json.dumps(
            {"finished": True, "metrics": {"accuracy": accuracy}, **stored, **record}))
    return folder


def write_result(root, dataset, trainer, variant, seed, accuracy, shots):
    folder = root / dataset / trainer / variant / f"seed{seed}"
    write_run(folder, accuracy, cell=cell_in(folder, shots, {}), seconds={"total": 1.0}, shots=shots, seed=seed,
              learned_parameters=1)


def cell_in(path, shots, opts):
    """The cell whose folder this is, as a sweep has it."""
    dataset, trainer, variant, seed = path.parts[-4:]
    config, *rest = re.split(r"_\d+shots|(?=@)|(?=-[A-Z])", variant, maxsplit=1)
    rest = "".join(rest)
    tag = re.match(r"(@[a-z0-9_]+)?", rest)[0]
    own = dict(pair.split("=", 1) for pair in rest[len(tag) + 1:].split(",") if pair)
    half = {"DATASET.SUBSAMPLE_CLASSES": tag[1:]} if tag in ("@base", "@new") else {}
    trained = Cell(trainer, tag[6:], shots, 1, config) if tag.startswith("@from_") else None
    return Cell(trainer, dataset, None if trainer == "ZeroshotCLIP" else shots, int(seed[4:]), config,
                opts={**opts, **own, **half}, user_opts=own, train_on=trained, recipe="any", tag=tag)
