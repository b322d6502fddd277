"""Heat maps of accuracy and transfer matrices."""
import json

import numpy as np
import pytest

from dassl.utils import UserError
from tools.plotting.matrix import draw_matrix
from tools.plotting.style import THEMES
from tools.plotting.tasks import draw as draw_tasks
from tools.runs.run import Run

NAN = float("nan")


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_value_has_its_number_and_an_unknown_one_leaves_its_cell_empty():
    figure = draw_matrix([[92.14, NAN], [88.0, 90.06]], ["after 1", "after 2"], ["task 1", "task 2"])
    assert texts(figure) == ["92.1", "88.0", "90.1"]
    (image,) = figure.axes[0].images
    assert image.get_array().mask.tolist() == [[False, True], [False, False]] and image.get_clim() == (0, 100)


def test_losses_and_gains_have_colours_of_equal_reach():
    figure = draw_matrix(np.array([[0.0, -12.0], [4.0, 1.0]]), "ab", "cd", unit="points")
    assert figure.axes[0].images[0].get_clim() == (-12, 12) and "−12.0" in texts(figure)


@pytest.mark.parametrize(("values", "rows"), [([[1.0]], ["a", "b"]), ([[NAN]], ["a"]), ([1.0], ["a"])])
def test_values_without_a_label_each_and_empty_matrices_are_refused(values, rows):
    with pytest.raises(UserError):
        draw_matrix(values, rows, ["t"])


def test_the_matrix_of_tasks_is_that_of_the_run(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("TRAINER: {NAME: L2P}\nDATASET: {NAME: Digits, NUM_SHOTS: 4}\nSEED: 1\n")
    (run / "results.json").write_text(json.dumps({"tasks": {
        "accuracy": [[90.0, 61.5], [20.25, 80.0]], "untrained": [10.0, 15.0], "average_accuracy": 70.75}}))
    figure = draw_tasks(Run(run), THEMES["light"])
    assert texts(figure) == ["10.0", "90.0", "61.5", "15.0", "20.2", "80.0"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["none", "1", "2"]
    (run / "results.json").write_text("{}")
    with pytest.raises(UserError, match="no tasks one after the other"):
        draw_tasks(Run(run), THEMES["light"])
