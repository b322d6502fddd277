"""What a method knows of the classes: names, sentences, and which of them training saw."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clip.templates import DEFAULT, fill

Describe = Callable[[str, str], list[list[str]]]


@dataclass(frozen=True)
class Classes:
    """Attributes:
        names: C of them, in the order of the logits.
        template: the dataset's sentence, with one {} for the name.
        describe: (kind, path) to the descriptions of each class, see `trainers.parts.descriptions.load_descriptions`;
            None where there are none.
        others: names of the dataset's other classes, of which there are no images here; None where nobody says.
        seen: for each class whether training saw images of it, of this dataset; None where nobody says. What is loaded
            later may know better, see `PromptedModel.saw`.
        image_size: side of the images that come, where it is not the tower's own (a border is learned around them).
        seed: of what is drawn for the classes; -1 for a random one.
    """

    names: Sequence[str]
    template: str = DEFAULT
    describe: Describe | None = None
    seen: Sequence[bool] | None = None
    image_size: int | None = None
    seed: int = -1
    others: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def sentences(self, template: str = "", underscores: bool = False) -> list[str]:
        """One for each class, in `template` or else the dataset's; underscores in names are kept or become spaces."""
        return fill(self.template if template == "" else template, list(self.names), underscores)
