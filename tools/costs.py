"""What a run of a recipe costs in operations: its training steps and test images, counted as the benchmark's floor is.

An operation is a multiplication or an addition of a matrix product; see tools/benchmark/floor.py and docs/scaling.md.
"""
from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from tools import inputs, train
from tools.benchmark import floor
from tools.benchmark.rows import class_names
from tools.recipes import CONFIGS, ZEROSHOT, Cell, Recipe

PIXELS = ("VP", "AR", "AttrVR", "DVPcse", "DVPcls")


@dataclass(frozen=True)
class Towers:
    """Sizes of a CLIP.

    Attributes:
        image_forward: operations of one image, for a tower that is no transformer; 0 counts them from the sizes.
    """

    size: int = 224
    patch: int = 16
    width: int = 768
    depth: int = 12
    joint: int = 512
    text_width: int = 512
    text_depth: int = 12
    image_forward: int = 0


# The ResNet's operations were counted on it by torch.utils.flop_counter (tools/benchmark/floor.py image_operations).
TOWERS = {"ViT-B/16": Towers(), "ViT-B/32": Towers(patch=32), "RN50": Towers(joint=1024, image_forward=12_222_939_136)}


@dataclass(frozen=True)
class Cost:
    """One run.

    Attributes:
        steps: of training, each of `step` operations. passes: images that go through the image tower without gradients,
            each of `image` operations (tests, prototypes, features).
    """

    trainer: str
    steps: int
    step: int
    passes: int
    image: int

    @property
    def operations(self) -> int:
        return self.steps * self.step + self.passes * self.image


def cost(recipe: Recipe, cell: Cell) -> Cost:
    """Of one run with the settings of its yamls and the recipe.

    Raises:
        KeyError: a trainer, backbone or dataset whose operations or sizes are not known here.
    """
    cfg, card = settings(cell.trainer, cell.config_file.stem), card_of(cell.dataset)
    towers, name = TOWERS[cfg.MODEL.BACKBONE.NAME], cell.trainer
    options = cfg.TRAINER[name.upper()] if name.upper() in cfg.TRAINER else None
    v, C, B = prompts(name, options), card.classes, cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    image = image_operations(name, towers, options).forward * v + 2 * towers.joint * texts(name, options, C)
    if name == "CoCoOp":                                    # every test image has a text pass of its own
        image += text_operations(name, towers, options, C, 1).forward
    if cell.train_on is not None or name == ZEROSHOT:
        return Cost(name, 0, 0, card.test, image)
    seen = min(cell.shots * C, card.train)
    if name == "LinearProbe":
        return Cost(name, 0, 0, seen + card.test + min(card.val or card.test, min(cell.shots, 4) * C), image)
    keeps_short_batches = name in PIXELS
    batches = -(-seen // B) if keeps_short_batches or seen < B else seen // B
    epochs = int(cell.opts.get("OPTIM.MAX_EPOCH", cfg.OPTIM.MAX_EPOCH))
    counting = name.startswith("DVP")                       # its first epoch only looks, and is not tested
    tests = epochs - counting if options.get("TEST_EVERY_EPOCH", False) else 0
    passes = card.test * (1 + tests) + seen * (name == "DAPT" or counting)
    return Cost(name, batches * (epochs - counting), step_operations(name, towers, options, C, min(B, seen)), passes,
                image)


def step_operations(trainer: str, towers: Towers, options, C: int, B: int) -> int:
    """Forward and backward of a training step with C classes and B images."""
    image = image_operations(trainer, towers, options) * (B * prompts(trainer, options))
    learns_image = image.backward > 0
    if trainer in ("CoOp", "CoCoOp", "DAPT"):
        image = image + text_operations(trainer, towers, options, C, B)
        return (image + floor.product(B, towers.joint, C, 1 + learns_image)).total
    return (image + floor.product(B, towers.joint, texts(trainer, options, C), 1)).total


def text_operations(trainer: str, t: Towers, options, C: int, B: int) -> floor.Operations:
    """All classes through the text tower, and back to the context; in CoCoOp once for each of B images."""
    init = options.get("CTX_INIT", "") or options.get("TXT_CTX_INIT", "")
    n = len(init.split()) if init else options.get("N_CTX", options.get("TXT_NUM_TOKENS"))
    sizes = (t.text_width, 4 * t.text_width, t.text_depth, t.joint)
    if trainer != "CoCoOp":
        return floor.text(1 + n, names(C), *sizes)
    hidden = t.joint // 16
    net = floor.product(B, t.joint, hidden, 1) + floor.product(B, hidden, t.text_width, 2)
    return floor.text(1 + n, names(C), *sizes, B) + net


def image_operations(trainer: str, t: Towers, options) -> floor.Operations:
    """One image through the image tower, and back to what is learned in it."""
    patches, sizes = (t.size // t.patch) ** 2, (t.width, 4 * t.width, t.depth, t.joint)
    if trainer in PIXELS:
        if t.image_forward:
            return floor.Operations(t.image_forward, t.image_forward)
        border = options.get("WIDTH") or t.size // 14             # 16 of 224 pixels, as published
        rings = -(-border // t.patch)
        touched = patches - max(t.size // t.patch - 2 * rings, 0) ** 2
        return floor.framed(patches, touched, t.patch, *sizes)
    if t.image_forward:
        return floor.Operations(t.image_forward)
    learned = {"VPT": "N_CTX_VISION", "DAPT": "VIS_NUM_TOKENS"}.get(trainer)
    return floor.vision(patches, t.patch, *sizes, options[learned] if learned else 0)


def prompts(trainer: str, options) -> int:
    """Views of each image that pass the image tower."""
    return {"DVPcse": lambda: len(options.CAUSES), "DVPcls": lambda: options.NUM_CLUSTERS}.get(trainer, lambda: 1)()


def texts(trainer: str, options, C: int) -> int:
    """Sentences that an image is compared with."""
    kinds = {"AttrVR": lambda: 2, "DVPcse": lambda: len(options.CAUSES), "DVPcls": lambda: 1}.get(trainer)
    return C * kinds() * options.NUM_DESCRIPTIONS if kinds else C


@cache
def names(C: int) -> tuple[int, ...]:
    """Tokens of each class from its name to the end, for names such as the benchmark's."""
    from clip.tokenizer import encode

    return tuple(len(encode(f"{name}.")) + 1 for name in class_names(C))


@cache
def settings(trainer: str, config: str):
    """The config of a trainer's yaml."""
    return train.setup_cfg(train.parser().parse_args(
        ["--trainer", trainer, "--config-file", str(CONFIGS / "trainers" / trainer / f"{config}.yaml")]))


@cache
def card_of(dataset: str):
    """The dataset's card, by the name of its yaml."""
    import yaml

    from datasets.cards import CARDS

    path = inputs.existing(CONFIGS / "datasets" / f"{dataset}.yaml")
    return CARDS[yaml.safe_load(path.read_text(encoding="utf-8"))["DATASET"]["NAME"]]
