"""Frozen CLIP over open_clip's weights and tokenizer, and the ways into its towers."""
from .backbones import BACKBONES
from .clip import available_models, load
from .errors import InputError
from .packing import TextTokens
from .text import embed_texts, encode_texts, warn_of_long_texts, warn_of_unknown_words
from .tokenizer import tokenize
from .towers import FrozenCLIP, TowerShape
from .tuning import Tuner, Tuners
from .weights import WeightsNotFound, load_clip

__all__ = ["BACKBONES", "FrozenCLIP", "InputError", "TextTokens", "TowerShape", "Tuner", "Tuners", "WeightsNotFound",
           "available_models", "embed_texts", "encode_texts", "load", "load_clip", "tokenize", "warn_of_long_texts",
           "warn_of_unknown_words"]
