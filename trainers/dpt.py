"""DPT: CoOp's context words, deep visual tokens, and class-aware visual tokens that are made from the words.

Source: Dual Modality Prompt Tuning (Xing et al., TMM 2023), authors' code 11fef90, trainers/DPT.py; numbers in
configs/recipes/dpt.yaml. What is easily missed:
- Frozen CLIP ranks the classes; the *learned* texts of the TOP_CLASSES likeliest, not normalised, ask the image.
- In the first GUIDED_EPOCHS each side is compared with the other one's frozen half, and with each other by a tenth.
- The blocks' scores are learned only where an image's true class is among its likeliest; they are not used in tests.
- The words have a learning rate and a warm-up of their own.
- Both kinds of visual tokens leave after their block; a block counts from 1 (FIRST_CLASS_AWARE).
A file of a base run fits other classes: the scores in it are left aside, as their code does.
"""
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.checkpoint_files import find_checkpoint, read_weights
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils.torchtools import load_weights
from trainers._base import PromptTrainer
from trainers.parts.class_aware import ClassAwareModel, ClassAwarePrompt, layer_loss
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import Output
from trainers.parts.text_prompt import TextPrompt

_LAYER = {"meta_net": "meta_nets.{}", "key": "attns.{}.kmlp", "query": "attns.{}.qmlp", "value": "attns.{}.vmlp",
          "classify": "classfiers.{}", "norm_found": "lns.{}", "norm_prompt": "lns2.{}"}
_BIASED = ("meta_net", "norm_found", "norm_prompt")
_THEIRS = {"image_encoder.transformer.ctx_learner": "ctx_learner.", "image_encoder.transformer.extractor": "extractor.",
           "prompt_learner": ""}        # folder in the authors' run: what precedes its names in our one file


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.DPT = CfgNode()
    c.N_CTX = 16                        # context words; more fit better and transfer worse
    c.CTX_INIT = ""                     # words to start from, e.g. "a photo of a"; then N_CTX is their number
    c.N_CTX_VISION = 10                 # visual tokens in each lower block
    c.FIRST_CLASS_AWARE = 12            # block, from 1, from which on visual tokens are class-aware
    c.TOP_CLASSES = 10                  # likeliest classes whose texts ask the image, at most all
    c.GUIDED_EPOCHS = 30                # in which either side learns from frozen CLIP's other one
    c.ALPHA = 0.3                       # weight of the class-aware blocks' own classification
    c.TEXT_LR = 0.002                   # learning rate of the words; OPTIM.LR is that of the rest
    c.TEXT_WARMUP_EPOCH = 1             # their OPTIM.WARMUP_EPOCH
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class DPT(PromptTrainer):
    section, needs_vit = "DPT", True
    one_process_only = "its blocks learn from those images of a batch whose class is among their likeliest"

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> ClassAwareModel:
        c = options
        text = TextPrompt(clip, classes.names, c.N_CTX, c.CTX_INIT)
        visual = ClassAwarePrompt(clip, c.N_CTX_VISION, c.FIRST_CLASS_AWARE, len(classes))
        return ClassAwareModel(clip, frozen_text=encode_texts(clip, classes.sentences()), top=c.TOP_CLASSES, text=text,
                               visual=visual, saved_as=_names(len(visual.upper)))

    def register_prompts(self, learner: nn.Module) -> None:
        self.register_learner("image_prompt", learner["visual"])
        of_text = self.cfg.OPTIM.clone()
        of_text.defrost()
        of_text.LR, of_text.WARMUP_EPOCH = self.options.TEXT_LR, self.options.TEXT_WARMUP_EPOCH
        optim = build_optimizer(learner["text"], of_text)
        self.register_model("text_prompt", learner["text"], optim, build_lr_scheduler(optim, of_text))
        self.register_model("prompt_learner", learner)              # all of it once more, under the authors' names

    def loss(self, out: Output, batch: dict) -> dict[str, Tensor]:
        c, label, model, frozen = self.options, batch["label"], self.model, out.aux["frozen_images"]
        layers = c.ALPHA * layer_loss(out.aux["layer_scores"], out.aux["top"], label)
        if self.epoch >= c.GUIDED_EPOCHS:
            return {"ce": F.cross_entropy(out.logits, label), "layers": layers}
        return {"words": F.cross_entropy(model.head(frozen, out.text_features, model.clip), label),
                "tokens": F.cross_entropy(model.head(out.image_features, model.frozen_text, model.clip), label),
                "both": 0.1 * F.cross_entropy(out.logits, label), "layers": layers}

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        if not directory or not all(Path(directory, folder).is_dir() for folder in _THEIRS):
            super().load_model(directory, epoch)
            return
        files = {prefix: find_checkpoint(directory, folder, _THEIRS, epoch) for folder, prefix in _THEIRS.items()}
        weights = {prefix + name: value for prefix, path in files.items()
                   for name, value in read_weights(path)["state_dict"].items()}
        load_weights(self.model.prompt_learner, weights, directory)
        self.loaded_files = tuple(files.values())
        self.weights_loaded(directory)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        k = len(weights.get("extractor.ctx", ()))
        if not k or weights.keys() != set(_names(k).values()):
            return None                 # how many classes ask is not in the file
        lower, n, _ = weights["ctx_learner.ctx"].shape
        return {"N_CTX": len(weights["ctx"]), "N_CTX_VISION": n, "FIRST_CLASS_AWARE": lower + 1}


def _names(layers: int) -> dict[str, str]:
    return {"text.ctx": "ctx", "visual.tokens": "ctx_learner.ctx", "visual.extra": "extractor.ctx",
            **{f"visual.upper.{i}.{own}.{kind}": f"extractor.{saved.format(i)}.{kind}"
               for i in range(layers) for own, saved in _LAYER.items()
               for kind in ("weight", "bias")[:2 if own in _BIASED else 1]}}
