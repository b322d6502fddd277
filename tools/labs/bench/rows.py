"""What can be measured: trainers, backbones, class names. Heavy things are imported when a row is asked for them."""
from __future__ import annotations

from dataclasses import dataclass

PRM = "DVP-PRM"
TRAINERS = ("CoOp", "VPT", "DAPT", "CoCoOp", "TCP", "PLOT", "ProDA", "MaPLe", "PromptSRC", "MMRL", "VP", "AR", "AttrVR",
            "DVPcse", "CoOp-test", "ZeroshotCLIP", "TPT", "TDA", PRM)
LEARN_TEXT = {"CoOp", "DAPT", "CoCoOp", "TCP", "PLOT", "ProDA", "MaPLe", "PromptSRC", "MMRL", "TPT"}
VIEWS = {"TPT": 64}                                     # of each image, as published
OF_224_PIXELS = {"VP": {"TRAINER.VP.WIDTH": 30}}        # published sizes, which go with the image's side
OF_TINY = {             # depths in place of the published ones, where a tower has two blocks
    "MaPLe": {"TRAINER.MAPLE.PROMPT_DEPTH": 2},
    "PromptSRC": {"TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT": 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION": 2},
    "MMRL": {"TRAINER.MMRL.REP_LAYERS": (1, 2)}, "TCP": {"TRAINER.TCP.BLOCK": 1}}
PRM_DESCRIPTIONS, PRM_BEST, PRM_BATCH = 60, 3, 64       # three causes of 20 sentences, as DVP publishes
BACKBONES = {"ViT-B/16": "ViT-B-16-quickgelu:random", "ViT-B/32": "ViT-B-32-quickgelu:random",
             "RN50": "RN50-quickgelu:random", "ViT-L/14": "ViT-L-14-quickgelu:random", "tiny": "tiny"}

_NOUNS = (
    "cat", "dog", "terrier", "spaniel", "hound", "sparrow", "owl", "eagle", "trout", "shark", "turtle", "frog",
    "lizard", "beetle", "butterfly", "spider", "crab", "horse", "tiger", "bear", "fox", "rabbit", "squirrel", "monkey",
    "elephant", "daisy", "orchid", "lily", "tulip", "mushroom", "pizza", "sushi", "waffle", "omelette", "guitar",
    "violin", "piano", "tractor", "airplane", "bicycle", "ship", "lighthouse", "bridge", "castle", "teapot",
    "lantern", "backpack", "umbrella", "armchair", "typewriter")
_QUALIFIERS = (
    "", "small", "golden", "black", "spotted", "red", "american", "striped", "old", "white", "long-haired", "water",
    "mountain", "dwarf", "english", "wild", "yellow-tailed", "painted", "giant", "pale blue")
MOST_CLASSES = len(_NOUNS) * len(_QUALIFIERS)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        trainer: one of TRAINERS; "X-test" is the evaluation of what X learns, "DVP-PRM" the reweighting of scores.
        backbone: a key of BACKBONES; "" for DVP-PRM, which needs none.
        classes: C. batch: images a step.
    """

    trainer: str
    backbone: str
    classes: int
    batch: int

    def __str__(self) -> str:
        return f"{self.trainer} {self.backbone}".strip() + f", {self.classes} classes, batch {self.batch}"

    @property
    def name(self) -> str:
        """Of the trainer."""
        return self.trainer.removesuffix("-test")

    @property
    def method(self) -> type | None:
        """The trainer's class; None where none is needed."""
        if self.trainer == PRM:
            return None
        from dassl.engine import TRAINER_REGISTRY
        from tools import train

        if self.name not in TRAINER_REGISTRY:
            train.register()
        return TRAINER_REGISTRY.get(self.name)

    @property
    def trains(self) -> bool:
        """Whether it is a training step; otherwise a test batch, or the product of scores."""
        return self.trainer == self.name != PRM and self.method.learns == "steps"

    @property
    def learns_text(self) -> bool:
        """Whether what is learned passes the text tower in every step, whose time grows with the classes."""
        return self.trainer in LEARN_TEXT

    @property
    def views(self) -> int:
        """Of each image; 0 where images come by themselves."""
        return VIEWS.get(self.trainer, 0)

    @property
    def image_size(self) -> int:
        return 32 if self.backbone == "tiny" else 224

    @property
    def input_size(self) -> int:
        """Side of the images from the loader."""
        return self.image_size * 6 // 7 if self.method.border else self.image_size


@dataclass(frozen=True)
class Settings:
    """device: "cpu" or "cuda". precision: fp32, fp16 or bf16. threads: of PyTorch. seed: of weights and images.

    onednn: TRAIN.ONEDNN of our steps, "auto", "on" or "off".
    """

    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    seed: int = 1
    onednn: str = "auto"


def class_names(C: int) -> list[str]:
    """C different names, 2 to MOST_CLASSES of them, always the same ones; one to four BPE tokens each."""
    n, q = len(_NOUNS), len(_QUALIFIERS)
    return [f"{_QUALIFIERS[(i // n + i) % q]} {_NOUNS[i % n]}".strip() for i in range(C)]
