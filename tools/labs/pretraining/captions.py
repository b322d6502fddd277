"""What is said about a rendered image: attributes, captions that state some of them, and the vocabulary in use."""

import numpy as np
from open_clip.tokenizer import SimpleTokenizer

from datasets.rendering import BACKGROUNDS, COLOURS, SHAPES, TEXTURES
from tools.labs.pretraining.glyphs import DIGITS, LETTERS, LOOKS

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
GLYPH_WORDS = (*DIGIT_WORDS, *LETTERS)
# Columns of an attribute row. UNSAID in a caption agrees with everything; ABSENT in an image agrees with nothing said.
ATTRIBUTES = {"glyph": GLYPH_WORDS, "look": LOOKS, "shape": SHAPES, "colour": tuple(COLOURS), "texture": TEXTURES,
              "background": BACKGROUNDS}
UNSAID, ABSENT = -1, -2

DIGIT_TEMPLATES = (
    "a photo of the digit {}.", "a photo of the digit {}.", "a photo of the number {}.", "a photo of a {}.", "{}",
    "digit {}", "the number {}", "a handwritten digit {}.", "a picture of the handwritten digit {}.",
    "an image of the number {}.", "a drawing of the digit {}.", "this is the number {}, written by hand.",
    "a centered photo of the digit {} in the middle of the picture.")
LOOK_TEMPLATES = (  # one tuple per entry of LOOKS
    ("a clear photo of the {} {}.", "a sharp picture of the {} {}."),
    ("a low resolution photo of the {} {}.", "a pixelated photo of the {} {}."),
    ("a blurry photo of the {} {}.", "a blurred picture of the {} {}."),
    ("a noisy photo of the {} {}.", "a grainy picture of the {} {}."),
)
SHAPE_TEMPLATES = (
    "a photo of a {}.", "a photo of a {}.", "a photo of a {}.", "{}", "a {}", "a picture of a {}.",
    "an image of a {}.", "a drawing of a {}.", "this is a {}.", "there is a {} in the photo.",
    "a photo of one {} in the middle of the picture.")
# Words of CLIP's published templates and other common ones: they may stand before a caption and mean nothing there.
FILLERS = """
    X a an the of in on and or with this that is my it its by from for at good bad nice large small big clean
    dirty cool weird bright dark close cropped corrupted hard to see many hi res high low rendition rendering render
    plastic embroidered toy origami painting sculpture sketch tattoo graffiti cartoon art video game illustration
    black white type kind class category style texture pattern object thing itap jpeg copy image photo picture
    figure symbol sign shape color colour digit number letter character handwriting font pen ink paper background .
    , : ' -
""".split()  # noqa: SIM905


def _shape_phrase(rng: np.random.RandomState, row: np.ndarray) -> tuple[str, np.ndarray]:
    said = np.full(len(ATTRIBUTES), UNSAID)
    says_colour, says_texture = (rng.uniform(size=2) < 0.75).tolist()
    says_background = rng.uniform() < 0.2
    for column, name in enumerate(ATTRIBUTES):
        if name == "shape" or (name == "colour" and says_colour) or (name == "texture" and says_texture):
            said[column] = row[column]
    shape, colour, texture = SHAPES[row[2]], tuple(COLOURS)[row[3]], TEXTURES[row[4]]
    phrase = " ".join([colour] * says_colour + [texture] * says_texture + [shape])
    if says_background:
        said[5] = row[5]
        phrase += f" on a {BACKGROUNDS[row[5]]} background"
    return phrase, said


def _caption(rng: np.random.RandomState, row: np.ndarray) -> tuple[str, np.ndarray]:
    """A caption that is true of the attribute row, and the attributes that it states."""
    if row[0] == ABSENT:
        phrase, said = _shape_phrase(rng, row)
        caption = SHAPE_TEMPLATES[rng.randint(len(SHAPE_TEMPLATES))].format(phrase)
    else:
        said = np.full(len(ATTRIBUTES), UNSAID)
        said[0] = row[0]
        is_digit = row[0] < len(DIGIT_WORDS)
        word = GLYPH_WORDS[row[0]]
        if is_digit and rng.uniform() < 0.1:
            word = str(row[0])
        kind = "digit" if is_digit else "letter"
        if rng.uniform() < 0.2:
            said[1] = row[1]
            choices = LOOK_TEMPLATES[row[1]]
            caption = choices[rng.randint(len(choices))].format(kind, word)
        else:
            caption = DIGIT_TEMPLATES[rng.randint(len(DIGIT_TEMPLATES))].format(word)
            if not is_digit:
                caption = caption.replace("digit", "letter").replace("number", "letter")
    if rng.uniform() < 0.15:  # so that positions further on are trained too, and unknown context is ignored
        count = rng.randint(1, 17)
        words = ["X"] * count if rng.uniform() < 0.5 else list(rng.choice(FILLERS, count))
        caption = " ".join([*words, caption])
    return caption, said


class Vocabulary:
    """The BPE ids that captions use; a caption becomes rows of a small embedding table."""

    def __init__(self):
        self.tokenizer = SimpleTokenizer()
        templates = (*DIGIT_TEMPLATES, *SHAPE_TEMPLATES, *(t for pair in LOOK_TEMPLATES for t in pair))
        texts = [template.replace("{}", " ") for template in templates] + ["on a background", "the letter"]
        texts += [*DIGITS, *FILLERS, *(word for words in ATTRIBUTES.values() for word in words)]
        self.words = sorted({word for text in texts for word in text.lower().replace(".", " . ").split()})
        self.ids = np.array(sorted(self._ids(self.words)), np.int32)
        self._row = {int(i): r for r, i in enumerate(self.ids)}

    def _ids(self, words) -> set[int]:
        special = {self.tokenizer.sot_token_id, self.tokenizer.eot_token_id}
        return special.union(*(self.tokenizer.encode(word) for word in words))

    def rows(self, caption: str) -> list[int]:
        """Embedding rows of start-of-text, the caption, end-of-text."""
        ids = [self.tokenizer.sot_token_id, *self.tokenizer.encode(caption), self.tokenizer.eot_token_id]
        return [self._row[i] for i in ids]

    def pad(self, captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rows (U, L), padded with 0 after end-of-text, and the position of end-of-text (U,)."""
        sequences = [self.rows(caption) for caption in captions]
        end = np.array([len(s) - 1 for s in sequences])
        table = np.zeros((len(sequences), end.max() + 1), np.int64)
        for row, sequence in zip(table, sequences, strict=True):
            row[: len(sequence)] = sequence
        return table, end


def describe(rng: np.random.RandomState, attributes: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """One true caption per image, duplicates merged.

    Args:
        attributes: (B, 6) int, ABSENT where an attribute does not apply.
    Returns:
        captions (U), what they state (U, 6) with UNSAID elsewhere, and the caption of each image (B,).
    """
    seen: dict[str, int] = {}
    stated, own = [], []
    for row in attributes:
        caption, said = _caption(rng, row)
        if caption not in seen:
            seen[caption] = len(stated)
            stated.append(said)
        own.append(seen[caption])
    return list(seen), np.stack(stated), np.array(own)


def is_true(stated: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """(B, U) bool: caption u says nothing false of image b."""
    return ((stated[None] == UNSAID) | (stated[None] == attributes[:, None])).all(-1)
