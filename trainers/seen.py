"""Which classes training saw, for the methods that answer others differently."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from dassl.utils import UserError
from trainers.parts.prompted_model import PromptedModel

CHOICES = ("auto", "all", "none")               # of TEST.SEEN_CLASSES


def say_which_were_seen(model: PromptedModel, names: Sequence[str], dataset: str, told: Mapping, choice: str,
                        where: str) -> None:
    """Tell a model that was loaded which of its classes the run that learned it saw.

    Args:
        names, dataset: of the classes that it answers for.
        told: classes.json of the run that learned it; {} where there is none.
        choice: TEST.SEEN_CLASSES: "all" or "none" decide, "auto" compares the names. Those of another dataset are
            others, as in cross-dataset tables.
        where: what was loaded, for the error.
    Raises:
        UserError: the model asks and nobody says.
    """
    seen = None if choice == "auto" else [choice == "all"] * len(names)
    if choice == "auto" and told.get("classnames"):
        learned = set(told["classnames"]) if told.get("dataset") == dataset else set()
        seen = [name in learned for name in names]
    if seen is None and model.asks_what_was_seen:
        raise UserError(f"{where} does not say which classes it was trained on (there is no classes.json), and its "
                        "method answers those otherwise than new ones. Set TEST.SEEN_CLASSES to all if training saw "
                        "all of these classes in this dataset, or to none.")
    model.saw(seen)
