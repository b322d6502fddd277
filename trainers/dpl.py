"""DPL (also called AP): context words that a network makes of a batch of images of one domain, at test time too.

Source: Domain Prompt Learning for Efficiently Adapting CLIP to Unseen Domains (Zhang et al., 2021), shogi880/DPLCLIP
53b1ff4 domainbed/algorithms.py. As published, an image is compared with the texts of all domains, and its label is its
class's text of the first one; UPSTREAM_COMPAT has that. Otherwise it is compared with the texts of its own domain. An
answer depends on the batch that the image comes in, whose order is drawn from SEED.
"""
from torch import Tensor

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.adapting import AdaptingTrainer
from trainers.parts.classes import Classes
from trainers.parts.domain_prompt import DomainPrompt
from trainers.parts.heads import NormalisingHead
from trainers.parts.prompted_model import Output, PromptedModel


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.DPL = CfgNode()
    c.N_CTX = 16                        # context words that the network makes; the authors sweep 2, 4, 8, 16
    c.WIDTH = 512                       # of its layers
    c.DEPTH = 3                         # number of its layers
    c.DROPOUT = 0.1                     # in training, before each activation
    c.UPSTREAM_COMPAT = False           # compare images with the texts of all source domains, as published
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class DPL(AdaptingTrainer):
    section, adapts, one_process_only = "DPL", "stream", "its words come from the mean of a whole batch"
    saved_as, bounds = {}, {**AdaptingTrainer.bounds, "WIDTH": (1, 4096), "DEPTH": (2, 16)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if (size := cfg.DATALOADER.TEST.BATCH_SIZE) < 2:
            raise UserError("DPL takes its words from the mean of a test batch, which is of at least 2 images, got "
                            f"DATALOADER.TEST.BATCH_SIZE {size}. The authors take 64.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c = options
        text = DomainPrompt(clip, classes.names, c.N_CTX, c.WIDTH, c.DEPTH, c.DROPOUT)
        names = {f"text.{name}": name for name in text.state_dict()}
        return PromptedModel(clip, text=text, head=NormalisingHead(), saved_as=names)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        layers = {name.rsplit(".", 1)[0] for name in weights if name.startswith("network.")}
        if not {"network.input", "network.output"} <= layers or weights.keys() - {"words"} != {
                f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}:
            return None
        width, D = weights["network.input.weight"].shape
        n = int(weights.get("words", len(weights["network.output.weight"]) // D))       # published: text width is D
        return {"N_CTX": n, "WIDTH": width, "DEPTH": len(layers)}

    def output(self, batch: dict) -> Output:
        model, features = self.model, self.model.image_features(self.inputs(batch), unit_norm=False)
        domains = 1 + max(item.domain for item in self.dm.dataset.train_x)
        if domains == 1:
            return model.compare(features)
        text, own = model.brick("text"), batch["domain"].to(self.device)
        texts = model.clip.encode_text(text.tokens(text.of_domains(features, own, domains)))         # (G, C, D)
        texts = texts.flatten(0, 1) if self.options.UPSTREAM_COMPAT else texts[own]
        return Output(model.head(features, texts, model.clip), features, texts)

    @classmethod
    def predict(cls, model: PromptedModel, images: Tensor, options: CfgNode) -> Tensor:
        """A batch of one domain (B, 3, H, W) to logits (B, C)."""
        return model(images).logits
