"""Prompt templates that methods publish for themselves. A dataset's own template stands on its card."""

# CLIP's general template; also what MaPLe's VPT writes for every dataset.  Source: CLIP, notebooks/Prompt_Engineering.
DEFAULT = "a photo of a {}."


def fill(template: str, classnames: list[str]) -> list[str]:
    """One sentence per class; underscores in class names become spaces, as in CoOp."""
    return [template.format(name.replace("_", " ")) for name in classnames]
