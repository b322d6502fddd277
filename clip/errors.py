"""The one error that frozen CLIP and the bricks raise for user errors."""


class InputError(ValueError):
    """A name, file, image size or prompt that does not fit; the message says the rule, the value and the way out."""
