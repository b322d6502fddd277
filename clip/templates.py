"""Prompt templates that methods publish for themselves. A dataset's own template is on its card."""

from .errors import InputError

# CLIP's general template; also what MaPLe's VPT writes for every dataset.  Source: CLIP, notebooks/Prompt_Engineering.
DEFAULT = "a photo of a {}."

# 60 of CLIP's 80 templates for ImageNet, in the order of PromptSRC (bb95c77, trainers/imagenet_templates.py), which
# reads its teacher from them.  Source: CLIP, notebooks/Prompt_Engineering_for_ImageNet.
IMAGENET_60 = (
    "a photo of a {}.", "a bad photo of a {}.", "a photo of many {}.", "a sculpture of a {}.",
    "a photo of the hard to see {}.", "a low resolution photo of the {}.", "a rendering of a {}.",
    "graffiti of a {}.", "a bad photo of the {}.", "a cropped photo of the {}.", "a tattoo of a {}.",
    "the embroidered {}.", "a photo of a hard to see {}.", "a bright photo of a {}.", "a photo of a clean {}.",
    "a photo of a dirty {}.", "a dark photo of the {}.", "a drawing of a {}.", "a photo of my {}.", "the plastic {}.",
    "a photo of the cool {}.", "a close-up photo of a {}.", "a black and white photo of the {}.",
    "a painting of the {}.", "a painting of a {}.", "a pixelated photo of the {}.", "a sculpture of the {}.",
    "a bright photo of the {}.", "a cropped photo of a {}.", "a plastic {}.", "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.", "a blurry photo of the {}.", "a photo of the {}.", "a good photo of the {}.",
    "a rendering of the {}.", "a {} in a video game.", "a photo of one {}.", "a doodle of a {}.",
    "a close-up photo of the {}.", "the origami {}.", "the {} in a video game.", "a sketch of a {}.",
    "a doodle of the {}.", "a origami {}.", "a low resolution photo of a {}.", "the toy {}.",
    "a rendition of the {}.", "a photo of the clean {}.", "a photo of a large {}.", "a rendition of a {}.",
    "a photo of a nice {}.", "a photo of a weird {}.", "a blurry photo of a {}.", "a cartoon {}.", "art of a {}.",
    "a sketch of the {}.", "a embroidered {}.", "a pixelated photo of a {}.", "itap of the {}.",
)

# All 80.  Source: the same notebook; WiSE-FT (58b7a4b) and FLYP (215d5bb) make their ImageNet classifiers from them.
IMAGENET_80 = (
    *IMAGENET_60, "a jpeg corrupted photo of the {}.", "a good photo of a {}.", "a plushie {}.",
    "a photo of the nice {}.", "a photo of the small {}.", "a photo of the weird {}.", "the cartoon {}.",
    "art of the {}.", "a drawing of the {}.", "a photo of the large {}.", "a black and white photo of a {}.",
    "the plushie {}.", "a dark photo of a {}.", "itap of a {}.", "graffiti of the {}.", "a toy {}.", "itap of my {}.",
    "a photo of a cool {}.", "a photo of a small {}.", "a tattoo of the {}.",
)

# Sentences of several datasets and of CLIP's for ImageNet, in the order of LASP's configs (5b1e8d9, one list for all
# datasets); one of them is there twice.
MIXED_35 = (
    "a photo of a {}, a type of flower.", "a photo of a person doing {}.", "a centered satellite photo of {}.",
    "a photo of a {}, a type of aircraft.", "{} texture.", "itap of a {}.", "a bad photo of the {}.", "a origami {}.",
    "a photo of the large {}.", "a {} in a video game.", "art of the {}.", "a photo of the small {}.",
    "a photo of a {}.", "a photo of many {}.", "a photo of the hard to see {}.", "a low resolution photo of the {}.",
    "a rendering of a {}.", "a bad photo of the {}.", "a cropped photo of the {}.", "a pixelated photo of the {}.",
    "a bright photo of the {}.", "a cropped photo of a {}.", "a photo of the {}.", "a good photo of the {}.",
    "a rendering of the {}.", "a close-up photo of the {}.", "a low resolution photo of a {}.",
    "a rendition of the {}.", "a photo of the clean {}.", "a photo of a large {}.", "a blurry photo of a {}.",
    "a pixelated photo of a {}.", "itap of the {}.", "a jpeg corrupted photo of the {}.", "a good photo of a {}.",
)


def fill(template: str, classnames: list[str], underscores: bool = False) -> list[str]:
    """One sentence per class; underscores in class names become spaces, as in CoOp, unless they are kept.

    Raises:
        InputError: a template that is no text, or has not exactly one {}.
    """
    if not isinstance(template, str) or template.count("{}") != 1:
        raise InputError(f'A template must have one {{}} for the class name, as in "{DEFAULT}", got {template!r}.')
    return [template.replace("{}", name if underscores else name.replace("_", " ")) for name in classnames]
