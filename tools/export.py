"""Write a run as an ONNX file: the image tower with its prompts, and the classes as a fixed classifier.

The file takes images and gives logits; what one needs to know beside them (class names, size, normalisation) is in it.
It is compared with the run before it is kept.
"""
from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools import command, status  # noqa: E402

OPSET = 18
TOLERANCE = 2e-3                        # of logits, which are cosines times a scale of about 100
LARGEST = 2 ** 31                       # bytes of one ONNX file
BATCHES = (1, 3)                        # of images by which file and run are compared
_MOST = 2 ** 20                         # images in a batch, as a bound for the exporter; the file has none
PACKAGES = ("onnx", "onnxscript", "onnxruntime")

EXAMPLES = f"""
examples:
  A run, and the same prompts for other classes:
    python tools/export.py --run output/digits/DAPT/tiny_16shots/seed1 digits.onnx
    python tools/export.py --run output/imagenet/CoOp/vit_b16_16shots/seed1 --classes "cat, dog" pets.onnx

  Zero-shot CLIP, without a run:
    python tools/export.py --backbone tiny --classes "circle, square, star" shapes.onnx

  Using it, in any language that ONNX Runtime has; in Python:
    session = onnxruntime.InferenceSession("digits.onnx")
    logits = session.run(None, {{"images": pixels}})[0]                # pixels (B, 3, H, W) float32
    facts = session.get_modelmeta().custom_metadata_map               # classnames, image_size, mean, std ...

The input is an image resized (short side, "interpolation"), cropped in the middle, divided by 255 and, where
"normalised" is true, normalised with "mean" and "std". A batch may have any size. Operators are those of opset {OPSET}.

needs: pip install {' '.join(PACKAGES)}
exit codes: 0 written; 2 not written, and a paragraph says why
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tools/export.py", description=__doc__.splitlines()[0], epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("file", type=Path, metavar="FILE.onnx", help="where it goes; one that is there is replaced")
    p.add_argument("--run", default="", metavar="FOLDER", help="run folder, as tools/train.py leaves it")
    p.add_argument("--classes", default="", metavar="NAMES", help='"a, b, c", or a file of names (default: the run\'s)')
    p.add_argument("--template", default="", help='sentence for class names; zero-shot only')
    p.add_argument("--backbone", default="", help="e.g. ViT-B/16, tiny; with --run: where the run's weights are now")
    p.add_argument("--epoch", type=int, help="which checkpoint (default: the one that the run was tested with)")
    p.add_argument("--root", default="", help="folder of the datasets, for runs that did not write down their classes")
    p.add_argument("--plugin", action="append", default=[], metavar="FILE_OR_MODULE", help="defines the run's trainer")
    p.add_argument("--allow-cpu-shim", action="store_true", help="run its calls for CUDA on the CPU if there is none")
    return p


def export(classifier, file: Path) -> float:
    """Write a classifier that lives on the CPU as ONNX.

    Returns:
        The largest difference between its logits and the file's, on random images.
    Raises:
        UserError: it cannot be exported, packages are missing, or the file would say something else.
    """
    from dassl.utils import UserError

    _need_packages()
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
        pairs = zip(run_file(part, images), map(classifier.scores, images), strict=True)
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
        UserError: a method whose answer is no fixed function of image features.
    """
    from dassl.engine import TRAINER_REGISTRY
    from dassl.utils import UserError
    from tools.prediction.graph import FixedGraph

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


def main(args: argparse.Namespace) -> int:
    from dassl.utils import UserError
    from tools.predict import classifier_of

    if args.file.suffix != ".onnx":
        raise UserError(f"The file to write ends in .onnx; got {args.file}.")
    _need_packages()
    args.device = "cpu"
    status.say(f"reading {args.run or args.backbone}")
    classifier = classifier_of(args, float32=True)
    status.say(f"Exporting {classifier.facts['trainer']} with {len(classifier.classnames)} classes; this takes a "
               "while.", end="\n")
    difference = export(classifier, args.file)
    print(f"{args.file}: {args.file.stat().st_size / 2 ** 20:.1f} MiB, opset {OPSET}, {len(classifier.classnames)} "
          f"classes; its logits differ from the run's by at most {difference:.1e}.")
    return 0


def cli(argv: list[str] | None = None) -> int:
    """The command line. Returns 0, 2 (yours to mend) or 130."""
    return command.run(main, parser().parse_args(argv))


def _need_packages() -> None:
    from importlib.util import find_spec

    from dassl.utils import UserError

    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise UserError(f"Writing ONNX needs {', '.join(missing)}: pip install {' '.join(missing)}, or "
                        "pip install -e \".[onnx]\" in the checkout.")


class _quiet:
    """The exporter's own progress, which says nothing to a user, is not shown."""

    def __enter__(self):
        self._levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir")}
        for name in self._levels:
            logging.getLogger(name).setLevel(logging.ERROR)

    def __exit__(self, *_):
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


if __name__ == "__main__":
    sys.exit(cli())
