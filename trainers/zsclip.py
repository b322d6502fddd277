"""ZeroshotCLIP: class names in the dataset's sentence, nothing learned.

Source: CLIP (Radford et al., ICML 2021); templates per dataset as in CoOp's trainers/zsclip.py (they stand on the
dataset cards).
"""
from clip import FrozenCLIP, encode_texts
from clip.templates import fill
from dassl.engine import TRAINER_REGISTRY
from trainers._base import PromptTrainer


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(PromptTrainer):
    def build_prompts(self, clip: FrozenCLIP) -> dict:
        self.max_epoch = 0                       # nothing to train: `train()` goes straight to the test
        return {"bank": encode_texts(clip, fill(self.template, self.classnames))}
