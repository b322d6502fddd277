"""The figures of several runs: transfer from every source to every target, and how test features lie."""
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from dassl.utils import UserError
from tools.plotting import geometry, transfer
from tools.plotting.style import THEMES
from tools.runs.protocols import expand
from tools.runs.recipe import load_recipe
from tools.tables import layouts
from tools.tables.rows import row_of

SETS = ("digits", "shapes")
RECIPE = load_recipe("mvlpt")


@pytest.fixture
def rows():
    """Accuracies 10 (the source's number) + the target's number."""
    found = {}
    for s, source in enumerate((*SETS, "digits+shapes")):
        for cell in expand(RECIPE, RECIPE.cell(source, 5, 1), "matrix", list(SETS)):
            row = found.setdefault((cell.dataset, cell.tag), row_of(cell, Path("x")))
            row.seeds[1] = 10.0 * (s + 1) + (*SETS, "digits+shapes").index(cell.dataset) if cell.tag else 5.0
    return list(found.values())


def test_a_matrix_has_every_pair_and_what_a_target_reaches_alone(rows):
    grid, = layouts.build(rows, ("matrix",))
    values = {line.labels[0]: [value.number for value in line.values][:2] for line in grid.lines}
    assert values == {"nothing": [5, 5], "digits": [5, 11], "shapes": [20, 5], "digits+shapes": [30, 31]}


def test_the_heat_map_shows_those_numbers(rows):
    figure = transfer.draw(rows, THEMES["light"])
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"5.0", "11.0", "20.0", "30.0", "31.0"} <= texts
    with pytest.raises(UserError, match="there are 0"):
        transfer.draw([row for row in rows if not row.tag], THEMES["light"])


def test_the_cells_start_from_the_sources_run_and_wait_for_it():
    source, target = expand(RECIPE, RECIPE.cell("digits", 5, 1), "matrix", ["digits", "shapes"])
    words = target.arguments("data", "out")
    assert words[words.index("MODEL.INIT_WEIGHTS") + 1] == f"out/{source.folder}"
    assert type(target).from_dict(target.as_dict()).start_from.folder == source.folder
    joint = RECIPE.cell("digits+shapes", 5, 1)
    assert "('Digits', 'Shapes')" in joint.arguments("data", "out") and joint.max_epoch == 50


def test_alignment_and_uniformity_are_the_means_of_the_seeds(rows):
    def run(a, u):
        each = {"images": a, "texts": None, "both": 2 * a}
        spread = {"images": u, "texts": u, "both": u}
        return SimpleNamespace(record={"embedding": {"images": 9, "alignment": each, "uniformity": spread}})

    rows = rows[:2]
    for row in rows:
        row.runs = {1: run(0.5, -2.0), 2: run(0.7, -3.0)}
    figure = geometry.draw(rows, THEMES["light"])
    assert [axes.get_title() or axes.get_title(loc="left") for axes in figure.axes] == ["images", "texts", "both"]
    for axes, aligned in zip(figure.axes, (0.6, 0.0, 1.2), strict=True):
        line = axes.lines[0]
        assert line.get_xdata()[0] == pytest.approx(-2.5) and line.get_ydata()[0] == pytest.approx(aligned)
    narrow = geometry.draw(rows, THEMES["paper"])               # a column: one panel below the other, the legend above
    narrow.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in narrow.axes]
    assert all(above.y0 > below.y1 for above, below in itertools.pairwise(boxes))
    assert narrow.legends[0].get_window_extent().y0 > boxes[0].y1
    with pytest.raises(UserError, match="embedding"):
        geometry.draw([], THEMES["light"])
