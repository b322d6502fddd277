"""What the options of a method may be: its own section of a config."""
from __future__ import annotations

import math
import sys
from collections.abc import Sequence

from clip.templates import DEFAULT
from dassl.config import CfgNode, get_cfg_default
from dassl.config.checks import LARGEST_NUMBER
from dassl.utils import UserError
from trainers.method import POSITIVE, Method

LARGEST = 4096                  # of a method's whole numbers, most of them sizes, where it does not say otherwise


def check_values(method: type[Method], options: CfgNode) -> None:
    """Raises UserError for a number outside the method's `bounds`, and for a template without a place for the name."""
    for key, value in options.items():
        for number in _listed(value):
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                most = LARGEST if isinstance(number, int) else math.inf
                check_number(f"TRAINER.{method.section}.{key}", number, *method.bounds.get(key, (-math.inf, most)))
    for key in ("TEMPLATE", "TEMPLATES"):
        for text in _listed(options.get(key, "")):
            if text != "" and text not in method.named_templates and not _is_template(text):
                raise UserError(f"TRAINER.{method.section}.{key} must have one {{}} for the class name, as in "
                                f"\"{DEFAULT}\", got {text!r}.")


def _listed(value: object) -> Sequence:
    return value if isinstance(value, (list, tuple)) else [value]


def _is_template(text: object) -> bool:
    return isinstance(text, str) and text.count("{}") == 1


def not_at_default(method: type[Method], options: CfgNode | None) -> str:
    """" Not at their defaults: TRAINER.L2P.TOP 4096.", to follow what a brick says of a value; "" where all are.

    A brick knows no key, and what it refuses is mostly what somebody has set.
    """
    extend = getattr(sys.modules[method.__module__], "extend_cfg", None)
    if not options or extend is None:
        return ""
    extend(usual := get_cfg_default())
    usual = usual.TRAINER.get(method.section, {})
    changed = [f"TRAINER.{method.section}.{key} {value!r}" for key, value in options.items()
               if key != "PREC" and usual.get(key) != value]
    return f" Not at {'its default' if len(changed) == 1 else 'their defaults'}: {', '.join(changed)}." if changed \
        else ""


def check_number(key: str, value: float, least: float = -math.inf, most: float = math.inf) -> None:
    """Raises UserError for a number out of bounds, or too large for float32 or NaN."""
    least, most = max(least, -LARGEST_NUMBER), min(most, LARGEST_NUMBER)
    if not least <= value <= most:
        low = "above 0" if least == POSITIVE else f"at least {least:g}"
        rule = low if value < least else f"at most {most:g}" if value > most else "a number"
        raise UserError(f"{key} must be {rule}, got {value}.")
