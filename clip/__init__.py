"""Frozen CLIP over open_clip's weights and tokenizer, and the places where prompts enter it."""
from .backbones import BACKBONES
from .clip import available_models, load
from .encoders import FrozenCLIP, Injector, TextTokens, TowerShape
from .errors import InputError
from .text import embed_texts, encode_texts
from .tokenizer import tokenize
from .weights import WeightsNotFound, load_clip

__all__ = ["BACKBONES", "FrozenCLIP", "InputError", "Injector", "TextTokens", "TowerShape", "WeightsNotFound",
           "available_models", "embed_texts", "encode_texts", "load", "load_clip", "tokenize"]
