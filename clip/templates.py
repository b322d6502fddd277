"""Prompt templates that methods publish for themselves. A dataset's own template stands on its card."""

from .errors import InputError

# CLIP's general template; also what MaPLe's VPT writes for every dataset.  Source: CLIP, notebooks/Prompt_Engineering.
DEFAULT = "a photo of a {}."


def fill(template: str, classnames: list[str], underscores: bool = False) -> list[str]:
    """One sentence per class; underscores in class names become spaces, as in CoOp, unless they are kept.

    Raises:
        InputError: not exactly one {} in the template.
    """
    if template.count("{}") != 1:
        raise InputError(f'A template has one {{}} where the class name goes, as in "{DEFAULT}"; got {template!r}.')
    return [template.replace("{}", name if underscores else name.replace("_", " ")) for name in classnames]
