"""How features lie on the unit sphere: how far class texts spread, how close the images of a class stay together.

Source: uniformity is Wang and Isola's (ICML 2020, eq. 2); spread texts and compact images are what Distribution-Aware
Prompt Tuning (Cho et al., ICCV 2023) trains for; the gap is Liang et al.'s (NeurIPS 2022, section 4).
"""
from __future__ import annotations

import statistics

import torch
from matplotlib.figure import Figure
from torch import Tensor

from dassl.metrics.embedding import uniformity
from dassl.utils import UserError
from tools.tables.layouts import method_names
from tools.tables.rows import Row

from .style import Theme, header, legend, sheet

KINDS = ("images", "texts", "both")
BANDWIDTH = 2.0                         # of the Gaussian, in Wang and Isola's measurements and in DAPT's loss

MEANINGS = {
    "text_uniformity": "log of the inter-dispersion of the class texts; lower: the classes spread more evenly",
    "text_inter_dispersion": "mean of exp(-2 × squared distance) over all pairs of class texts; lower: more spread",
    "image_within": "mean distance of an image to the mean of its class; lower: more compact classes",
    "image_between": "mean distance between two class means; higher: classes farther apart",
    "image_ratio": "distance between classes divided by distance within a class; higher: better separated",
    "modality_gap": "distance between the mean image and the mean class text",
}


def measure(images: Tensor, labels: Tensor, texts: Tensor) -> dict[str, float | None]:
    """The numbers that MEANINGS explains; None where there are too few classes or images for one.

    Args:
        images: (N, D), unit norm. labels: (N,). texts: (C, D), unit norm.
    """
    spread = uniformity(texts, BANDWIDTH) if len(texts) > 1 else None
    within, between = compactness(images, labels)
    return {"text_uniformity": None if spread is None else float(spread),
            "text_inter_dispersion": None if spread is None else float(spread.exp()),
            "image_within": within, "image_between": between,
            "image_ratio": between / within if within and between is not None else None,
            "modality_gap": float((images.mean(0) - texts.mean(0)).norm())}


def compactness(images: Tensor, labels: Tensor) -> tuple[float | None, float | None]:
    """Mean distance of an image to the mean of its class, and mean distance between two class means.

    A class of one image is its own mean, so it is left out of the first number.

    Args:
        images: (N, D). labels: (N,).
    """
    classes, place, sizes = labels.unique(return_inverse=True, return_counts=True)
    means = torch.zeros(len(classes), images.shape[1]).index_add_(0, place, images) / sizes[:, None]
    several = sizes[place] > 1
    within = float((images - means[place])[several].norm(dim=1).mean()) if several.any() else None
    return within, float(torch.pdist(means).mean()) if len(means) > 1 else None


def draw(rows: list[Row], theme: Theme) -> Figure:
    """Alignment against uniformity, the mean of the seeds of each row; a panel for images, texts and both.

    Raises:
        UserError: no run among the rows has these measures.
    """
    points = {kind: [(row, *found) for row in rows if (found := _mean(row, kind))] for kind in KINDS}
    if not any(points.values()):
        raise UserError("None of these runs has measured alignment and uniformity (embedding in results.json). Run "
                        "them again with this version.")
    points = {kind: found for kind, found in points.items() if found}
    names, datasets = method_names(rows), list(dict.fromkeys(row.dataset for row in rows))
    looks = {key: theme.look(i) for i, key in enumerate(names)}
    figure = sheet(theme, 3.1 * len(points) + 0.4, 3.2)
    handles = {}
    for axes, (kind, found) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        for row, aligned, uniform in found:
            key = row.method
            handles[names[key]], = axes.plot(uniform, aligned, **{**looks[key], "linestyle": ""}, gid=f"{kind} point")
            if len(datasets) > 1:
                axes.annotate(row.dataset, (uniform, aligned), xytext=(4, 3), textcoords="offset points",
                              size=theme.small, color=theme.muted)
        axes.set(title=kind, xlabel="uniformity", ylabel="alignment")
        axes.margins(0.2)
    legend(figure, list(handles.values()), list(handles))
    header(figure, theme, "Alignment and uniformity of test features", [
        "Lower is better: features that belong together lie close (alignment), all spread evenly (uniformity). Images: "
        "pairs of a class. Texts: prompts of a class. Both: an image and its class's texts; all features together."])
    return figure


def _mean(row: Row, kind: str) -> tuple[float, float] | None:
    """Alignment and uniformity; of texts alone, alignment is 0 where a class has one."""
    found = [run.record["embedding"] for run in row.runs.values() if run.record and "embedding" in run.record]
    pairs = [(each["alignment"][kind], each["uniformity"][kind]) for each in found]
    pairs = [(0.0 if a is None and kind == "texts" else a, u) for a, u in pairs]
    pairs = [pair for pair in pairs if None not in pair]
    return tuple(map(statistics.fmean, zip(*pairs, strict=True))) if pairs else None
