"""Heat maps of accuracy and transfer matrices."""
import numpy as np
import pytest

from dassl.utils import UserError
from tools.plotting.matrix import draw_matrix

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
