"""A classifier as an ONNX file that is compared with it before it is kept."""
from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from dassl.errors import UserError
from tools import status

OPSET = 18
TOLERANCE = 2e-3                        # of logits, which are cosines times a scale of about 100
LARGEST = 2 ** 31                       # bytes of one ONNX file
BATCHES = (1, 3)                        # of images by which file and run are compared
_MOST = 2 ** 20                         # images in a batch, as a bound for the exporter; the file has none
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def export(classifier, file: Path) -> float:
    """Write a classifier that lives on the CPU as ONNX.

    Returns:
        The largest difference between its logits and the file's, on random images.
    Raises:
        UserError: it cannot be exported, packages are missing, or the file would say something else.
    """
    need_packages()
    import onnx
    import torch

    graph = as_graph(classifier)
    weights = sum(t.numel() * t.element_size() for t in graph.used())
    if weights > LARGEST:
        raise UserError(f"One ONNX file holds up to 2 GiB, and {classifier.facts['backbone']}'s image tower has "
                        f"{weights / 2 ** 30:.1f}. Export a smaller backbone.")
    images = [example(classifier, B) for B in BATCHES]
    status.say("translating the image tower; minutes for a large one")
    with torch.no_grad(), warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(graph, (images[1],), dynamo=True, opset_version=OPSET, input_names=["images"],
                                    output_names=["logits"], verbose=False,
                                    dynamic_shapes={"images": {0: torch.export.Dim("batch", max=_MOST)}})
    model = program.model_proto
    onnx.helper.set_model_props(model, metadata(classifier))
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    try:
        status.say("writing the file")
        part.write_bytes(model.SerializeToString())
        status.say("comparing the file's logits with the run's")
        pairs = zip(run_file(part, images), map(classifier.logits, images), strict=True)
        differences = [float((found - wanted).abs().max()) for found, wanted in pairs]
        if not max(differences) <= TOLERANCE:
            raise UserError(f"The exported file was not kept: its logits differ from the run's by "
                            f"{max(differences):g}, which is more than {TOLERANCE:g}. Another release of "
                            f"{' or '.join(PACKAGES)} may do better.")
        os.replace(part, file)
    finally:
        status.say("")
        part.unlink(missing_ok=True)
    return max(differences)


def as_graph(classifier):
    """The classifier as a module of images alone, its text features computed once.

    Raises:
        UserError: a method whose answer is not a fixed function of image features.
    """
    from dassl.engine import TRAINER_REGISTRY
    from tools.labs.onnx.graph import FixedGraph

    name, model = classifier.facts["trainer"], classifier.model
    if model is None or model.is_conditional:
        adapts = name in TRAINER_REGISTRY and getattr(TRAINER_REGISTRY.get(name), "adapts", "")
        why = ("its text features differ from image to image" if model is not None else
               "it learns at test time" if adapts else "it brings a model or an answer of its own")
        raise UserError(f"{name} has no fixed classifier to export: {why}. Answer with the run itself, python "
                        "tools/predict.py --run FOLDER (--serve for a page), or export a run of a method that compares "
                        "image features with fixed ones, such as CoOp.")
    return FixedGraph(classifier.model, example(classifier, 1)).eval()


def example(classifier, B: int):
    """(B, 3, H, W) of a size that the classifier's transform gives, in [0, 1]; the same ones in every call."""
    import torch
    from PIL import Image

    size = classifier.transform(Image.new("RGB", (8, 8))).shape
    return torch.rand(B, *size, generator=torch.Generator().manual_seed(B))


def metadata(classifier) -> dict[str, str]:
    """What the file says of itself; lists as JSON."""
    from torchvision.transforms import Normalize, Resize

    steps = {type(step): step for step in classifier.transform.transforms}
    resize, normalise = steps[Resize], steps.get(Normalize)
    facts = {"classnames": classifier.classnames, "image_size": example(classifier, 1).shape[-1],
             "interpolation": resize.interpolation.value, "normalised": normalise is not None,
             "mean": normalise.mean if normalise else [0.0] * 3,
             "std": normalise.std if normalise else [1.0] * 3, "opset": OPSET,
             **{key: classifier.facts[key] for key in ("trainer", "dataset", "backbone", "sha256", "template")}}
    return {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in facts.items()}


def run_file(file: Path, images: list) -> list:
    """Logits that ONNX Runtime finds with a file for each of some batches, on the CPU."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(session.run(None, {"images": batch.numpy()})[0]) for batch in images]


def need_packages() -> None:
    from importlib.util import find_spec

    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"Writing ONNX needs {', '.join(missing)}: pip install {' '.join(missing)}, or "
                        "pip install -e \".[onnx]\" in the checkout.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's own progress, which says nothing to a user, is not shown."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
