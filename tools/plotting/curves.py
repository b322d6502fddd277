"""How a training went: its losses, accuracies and learning rate over the epochs."""
from __future__ import annotations

import re
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dassl.utils import UserError
from tools.runs.run import Run

from .style import Theme, header, sheet

WIDTH, PANEL = 7.5, 1.75                # of the figure; height of a panel: inches
SMALL_TERM = 0.1                        # of the largest term: below it a term has a panel of its own
_BATCHES = re.compile(r"^epoch \[\d+/\d+\] batch \[\d+/(\d+)\]", re.M)


@dataclass
class Curve:
    """One quantity over a training.

    Attributes:
        batches: (epochs so far, value in that batch). epochs: (epochs so far, mean over the epoch).
    """

    batches: list[tuple[float, float]] = field(default_factory=list)
    epochs: list[tuple[float, float]] = field(default_factory=list)

    @property
    def means(self) -> list[tuple[float, float]]:
        return self.epochs or self.batches


def read(run: Run) -> dict[str, Curve]:
    """Curves by name, "train/loss" or "test/accuracy", from TensorBoard's files.

    Training tags hold the running mean of their epoch at every batch; those of a split one value per test.

    Raises:
        UserError: there are none.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0})
    if (run.folder / "tensorboard").is_dir():
        events.Reload()
    found, batches = {}, _BATCHES.findall("\n".join(run.log_tail(10_000)))
    for tag in events.Tags()["scalars"]:
        values = {event.step: event.value for event in events.Scalars(tag)}       # of a resumed run the later ones
        if tag.startswith("train/"):
            per_epoch = int(batches[-1]) if batches else max(1, (max(values) + 1) // run.settings["OPTIM"]["MAX_EPOCH"])
            found[tag] = _of_running_means(values, per_epoch, tag == "train/lr")
        else:
            found[tag] = Curve(epochs=[(step + 1.0, value) for step, value in sorted(values.items())])
    if not found:
        raise UserError(f"{run.folder} has no training curves: no TensorBoard files with epochs. {run.trainer} may not "
                        "train by gradients, or the run only tested.")
    return found


def draw(run: Run, theme: Theme) -> Figure:
    """Loss with its terms, accuracies and learning rate, one below the other over the epochs."""
    curves = read(run)
    train = {name.removeprefix("train/"): curve for name, curve in curves.items() if name.startswith("train/")}
    large, small = _by_size(_terms({name: curve for name, curve in train.items() if name not in ("acc", "lr")}))
    panels = {"loss": large, "small loss terms": small,
              "accuracy, %": {**({"training batches": train["acc"]} if "acc" in train else {}),
                              **{f"{split} split": curves[f"{split}/accuracy"] for split in ("val", "test")
                                 if f"{split}/accuracy" in curves}},
              "learning rate": {"": train["lr"]} if "lr" in train else {}}
    panels = {name: found for name, found in panels.items() if found}
    figure = sheet(theme, WIDTH, len(panels) * PANEL)
    last = max(x for curve in curves.values() for x, _ in curve.batches + curve.epochs)
    for ax, (name, found) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items()):
        ax.set(gid=name, ylabel=name, xlabel="epoch", xlim=(0, last * 1.01))
        _panel(ax, found, theme)
    header(figure, theme, "Training curves", [run.summary, "Pale: single batches; full: means over an epoch."])
    return figure


def _terms(terms: dict[str, Curve]) -> dict[str, Curve]:
    """Without a term that is the whole loss, which is then called by both names."""
    same = [name for name, curve in terms.items() if name != "loss" and "loss" in terms
            and curve.means == terms["loss"].means]
    return {f"loss (= {same[0]})" if same and name == "loss" else name: curve for name, curve in terms.items()
            if name not in same}


def _by_size(terms: dict[str, Curve]) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """The terms that show on the scale of the largest, and those that would lie flat on its zero."""
    sizes = {name: max(abs(value) for _, value in curve.means) for name, curve in terms.items()}
    large = {name: curve for name, curve in terms.items() if sizes[name] >= SMALL_TERM * max(sizes.values())}
    return large, {name: curve for name, curve in terms.items() if name not in large}


def _panel(ax: Axes, found: dict[str, Curve], theme: Theme) -> None:
    """The curves; next to them their names with their last values."""
    ax.grid(axis="y")
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=(1, 2, 5, 10)))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 2.5, 5, 10)))
    for i, (name, curve) in enumerate(found.items()):
        look = {**theme.look(i), "marker": "o" if len(curve.means) < 3 else ""}
        if curve.epochs and curve.batches:
            ax.plot(*zip(*curve.batches), color=look["color"], alpha=0.3, linewidth=0.8, gid=f"{name} batches")
        last = "" if theme.paper else f"\nlast {curve.means[-1][1]:.4g}"
        ax.plot(*zip(*curve.means), gid=name, clip_on=False, label=name + last, **look)
    if any(found):
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2} if theme.paper else \
            {"loc": "upper left", "bbox_to_anchor": (1.01, 1.04)}
        ax.legend(borderaxespad=0, fontsize=theme.small, **place)


def _of_running_means(values: dict[int, float], per_epoch: int, plain: bool) -> Curve:
    """A curve from values by step; unless they are `plain`, each is the mean of its epoch so far."""
    curve = Curve()
    for step, mean in sorted(values.items()):
        i = step % per_epoch                                                      # batches before it in its epoch
        before = values.get(step - 1, 0.0) if i else 0.0
        curve.batches.append(((step + 1) / per_epoch, mean if plain else mean * (i + 1) - before * i))
        if not plain and (i + 1 == per_epoch or step == max(values)):
            curve.epochs.append(((step + 1) / per_epoch, mean))
    return curve

