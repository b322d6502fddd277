"""What is said of the classes of the embedded datasets, in the words that the embedded CLIP was trained on.

A kind of sentences is a few frames, each filled with every word of MEDIA. Half of the sentences on a shape name the
whole class, the others leave one attribute unsaid, as people do; none leaves out two: a sentence
that is true of many classes does not describe one.
"""
from __future__ import annotations

from collections.abc import Iterable

MEDIA = ("photo", "picture", "image", "drawing")
Descriptions = dict[str, dict[str, list[str]]]      # {kind: {class: [sentences]}}

# The causes of a shape are its shape, its colour and its texture. `whole` is "red striped circle", `painted` "red
# circle", `patterned` "striped circle"; {a_...} is the same with its article.
_SHAPES = {
    "des": (
        "{a_medium} of {a_whole} in the middle of the {medium}",
        "this {medium} is of {a_whole} on a background",
        "there is one {whole} to see in this {medium}, large and clear",
        "{a_painted} with a {texture} pattern in the {medium}",
        "the object in the {medium} is {a_painted}",
        "a clean {medium} of one {patterned}",
    ),
    "dist": (
        "of the many in my {medium}, this is the {whole}",
        "it is the {whole} that this {medium} is of",
        "there is one {whole} in the {medium}, and it is to see by its {colour} colour",
        "the {painted} is the one in this {medium}",
        "the {patterned} is the one in this {medium}",
        "this kind of {medium} is of {a_patterned}, by its {texture} pattern",
    ),
    "cse_1": (
        "the shape of the {whole} in the {medium} is a {shape}",
        "{a_medium} of {a_whole}, its shape is clear to see",
        "there is {a_whole} with the shape of a {shape} in the {medium}",
        "the shape of the {painted} in this {medium} is a {shape}",
        "{a_medium} of {a_patterned} in the shape of a {shape}",
        "the figure in the {medium} is {a_painted}",
    ),
    "cse_2": (
        "the colour of the {whole} in the {medium} is {colour}",
        "{a_medium} of {a_whole}, its colour is clear to see",
        "there is {a_whole} of a bright {colour} colour in the {medium}",
        "the {shape} in this {medium} is {colour}",
        "{a_medium} of {a_painted}, its colour is {colour}",
        "{a_painted}, the color in the {medium} is {colour}",
    ),
    "cse_3": (
        "the texture of the {whole} in the {medium} is {texture}",
        "{a_medium} of {a_whole}, its texture is clear to see",
        "there is {a_whole} with a {texture} pattern in the {medium}",
        "the {shape} in this {medium} is {texture}",
        "{a_medium} of {a_patterned}, the pattern is {texture}",
        "{a_patterned}, the texture in the {medium} is {texture}",
    ),
}

# The causes of a digit are its form, its handwriting and the picture around it. What the form is like comes first:
# the text tower goes by the last thing named.
_DIGITS = {
    "des": (
        "{a_medium} of the digit {word} in the middle of the {medium}",
        "this {medium} is of the number {word}, written by hand",
        "there is one handwritten {word} to see in this {medium}",
        "{a_medium} of the number {figure} with its dark background",
        "the digit {figure}, to see in a small {medium}",
        "a small {medium} of the digit {word}, in low resolution",
    ),
    "dist": (
        "of the many in my {medium}, this is the digit {word}",
        "it is the digit {word} that this {medium} is of",
        "it is to see by its shape that the number in the {medium} is {word}",
        "this {medium} is of the symbol {figure}, a number",
        "with {likeness} in its shape, this {medium} is of the digit {word}",
        "this kind of {medium} is of the number {word}, by its shape",
    ),
    "cse_1": (
        "the shape of the digit {word} in the {medium}",
        "{a_medium} of the number {word}, its shape is clear to see",
        "with {likeness} to see in its shape, this {medium} is of the digit {word}",
        "{likeness} is in the shape of this, the number {word} in the {medium}",
        "the figure in the {medium} is the number {word}",
        "the symbol {figure} and its shape in the {medium}",
    ),
    "cse_2": (
        "{a_medium} of the handwritten digit {word}",
        "the digit {word} in ink, written by hand, in the {medium}",
        "this {medium} is of the handwritten number {word}",
        "the number {word}, written with a pen, in the {medium}",
        "{a_medium} of the number {figure}, written by hand",
        "the pen and the ink of a handwritten {word} in the {medium}",
    ),
    "cse_3": (
        "{a_medium} of the digit {word} on a background",
        "the number {word} on a dark background in the {medium}",
        "a low resolution {medium} of the digit {word}",
        "a pixelated {medium} of the number {word}",
        "the digit {word} in the middle of the {medium}",
        "the number {figure} on paper in the {medium}",
    ),
}
# The figure of a digit, and what of its form the vocabulary has a word for.
_FORMS = {
    "zero": ("0", "one large ring"),
    "one": ("1", "a plain hard pattern"),
    "two": ("2", "a crescent"),
    "three": ("3", "a crescent and a crescent"),
    "four": ("4", "a cross"),
    "five": ("5", "a crescent"),
    "six": ("6", "one small circle"),
    "seven": ("7", "a sharp pattern"),
    "eight": ("8", "a circle and a circle"),
    "nine": ("9", "one small circle"),
}


# Captions of an image say all that is known of it.
_SHAPE_CAPTIONS = ("a photo of {a_whole} on a {background} background.", "{a_whole} on a {background} background",
                   "a picture of {a_whole} on a {background} background.",
                   "this is {a_whole} on a {background} background.")
_DIGIT_CAPTIONS = ("a photo of the digit {word}.", "a picture of the handwritten digit {word}.",
                   "this is the number {word}, written by hand.", "a drawing of the digit {word}.",
                   "an image of the number {figure}.")


def shape_captions(has: dict[str, str], background: str) -> tuple[str, ...]:
    """Of an image of a class with these attributes ("shape", "colour", "texture") on a background."""
    whole = _with_article(f"{has['colour']} {has['texture']} {has['shape']}")
    return tuple(frame.format(a_whole=whole, background=background) for frame in _SHAPE_CAPTIONS)


def digit_captions(name: str) -> tuple[str, ...]:
    """Of an image of the digit that this English word names."""
    return tuple(frame.format(word=name, figure=_FORMS[name][0]) for frame in _DIGIT_CAPTIONS)


def shape_descriptions(attributes: dict[str, dict[str, str]]) -> Descriptions:
    """24 sentences of each kind about each class.

    Args:
        attributes: {class: {"shape", "colour", "texture"}}.
    """
    words = {}
    for name, has in attributes.items():
        phrases = {"whole": f"{has['colour']} {has['texture']} {has['shape']}",
                   "painted": f"{has['colour']} {has['shape']}", "patterned": f"{has['texture']} {has['shape']}"}
        words[name] = {**has, **phrases, **{f"a_{key}": _with_article(phrase) for key, phrase in phrases.items()}}
    return _fill(_SHAPES, words)


def digit_descriptions(names: Iterable[str]) -> Descriptions:
    """24 sentences of each kind about each digit, named in English words."""
    forms = {name: _FORMS[name] for name in names}
    return _fill(_DIGITS, {name: {"word": name, "figure": figure, "likeness": likeness}
                           for name, (figure, likeness) in forms.items()})


def _fill(frames: dict[str, tuple[str, ...]], words: dict[str, dict[str, str]]) -> Descriptions:
    media = [{"medium": medium, "a_medium": _with_article(medium)} for medium in MEDIA]
    return {kind: {name: [f"{frame.format(**medium, **own)}." for frame in own_frames for medium in media]
                   for name, own in words.items()} for kind, own_frames in frames.items()}


def _with_article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
