"""ZeroshotCLIP: class names in the dataset's sentence, nothing learned.

Source: CLIP (Radford et al., ICML 2021); templates per dataset as in CoOp's trainers/zsclip.py (they stand on the
dataset cards).
"""
from clip import FrozenCLIP, encode_texts
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(PromptTrainer):
    learns = "nothing"

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: None) -> PromptedModel:
        return PromptedModel(clip, text=encode_texts(clip, classes.sentences()))
