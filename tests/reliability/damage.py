"""Ways in which files go wrong: bytes cut, flipped, zeroed; JSON with values of other types."""
from __future__ import annotations

import copy
import json
import random

OTHER_VALUES = (None, True, -1, 0, 10 ** 12, 1.5, float("nan"), "", "x", "\u202e<b>", "../../x", [], {}, [[]],
                {"a": None})


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The bytes of a file with one thing wrong."""
    at = rng.randrange(len(data)) if data else 0
    kind = rng.choice(("cut", "flip", "zeros", "junk", "twice", "empty"))
    if kind == "cut":
        return data[:at]
    if kind == "flip" and data:
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1:]
    if kind == "zeros":
        return data[:at] + bytes(min(64, len(data) - at)) + data[at + 64:]
    if kind == "junk":
        return data[:at] + rng.randbytes(16) + data[at:]
    return data + data[at:] if kind == "twice" else b""


def distorted(content, rng: random.Random) -> bytes:
    """JSON of the content with one node removed, doubled or replaced."""
    content = copy.deepcopy(content)
    holder, key = rng.choice(list(_nodes(content))) if rng.random() > 0.1 else ({"": content}, "")
    if key == "":
        content = rng.choice(OTHER_VALUES)
    elif (kind := rng.choice(("remove", "replace", "replace", "twice"))) == "remove":
        del holder[key]
    elif kind == "twice" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[key] = rng.choice(OTHER_VALUES)
    return json.dumps(content).encode()


def _nodes(content):
    """(holder, key) of every value; of long lists the first and some others."""
    pairs = list(content.items()) if isinstance(content, dict) else list(enumerate(content))
    for key, value in pairs if len(pairs) < 8 else pairs[:4] + pairs[-2:]:
        yield content, key
        if isinstance(value, (dict, list)) and value:
            yield from _nodes(value)
