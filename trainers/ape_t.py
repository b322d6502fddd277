"""APET (APE-T): a cache and texts that move together, class by class, in the channels that tell classes apart.

Source: APE (Zhu et al., ICCV 2023), authors' code 70460de, main.py APE_T, utils.py, configs. What is easily missed:
- A class's residual is added to its text and to each of its keys, and nothing is normalised afterwards.
- Each key learns the weight of its vote.
- Channels come from texts and images, though their code asks for texts alone: it finds what APE left on the disk.
- AdamW has an epsilon of 1e-3 and a decay of 0.1; alpha and beta stay as they start while it learns.
- The first epoch of the best on validation images counts; alpha and beta are sought for it afterwards.
Difference: the dataset's template in place of their GPT-3 sentences (TEMPLATES takes others).
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.errors import as_user_error
from trainers.parts.channels import ResidualCacheHead
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.teacher import mean_text_features
from trainers.tip_adapter_f import TipAdapterF


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.APET = CfgNode()
    c.SHARE = 0.8                       # of the channels, which moves
    c.DISSIMILARITY = 0.2               # weight of classes' dissimilarity in choosing channels, against the variance
    c.ALPHA, c.BETA = 1.0, 1.0          # of votes and of distances, while it learns and where they are not sought
    c.ALPHA_MAX, c.BETA_MAX = 7.0, 7.0  # largest values of the search, 20 and 200
    c.SELECT = "val"                    # where the epoch, alpha and beta are chosen: "val", "test", or "fixed": the
                                        # last epoch, and they stay as above
    c.CROPS = 10                        # random crops of an image whose features are averaged to its key
    c.TEMPLATES = ()                    # sentences of a class, averaged; () is the dataset's own one
    c.PREC = "fp16"                     # fp16, amp, bf16 (autocast) or fp32; a CPU runs bf16 or fp32


@TRAINER_REGISTRY.register()
class APET(TipAdapterF):
    section, saved_as, epoch_chosen_on = "APET", {}, ("val", "test")

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.APET
        if not (0 <= c.DISSIMILARITY <= 1 and 0 < c.SHARE <= 1):
            raise UserError("TRAINER.APET needs DISSIMILARITY in [0, 1] and SHARE in (0, 1], got "
                            f"{c.DISSIMILARITY} and {c.SHARE}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c, text = options, mean_text_features(clip, classes, options.TEMPLATES)
        count = max(1, round(c.SHARE * clip.embed_dim))
        return PromptedModel(clip, text=text, head=ResidualCacheHead(clip, len(classes), count, c.ALPHA, c.BETA))

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        names = ("keys", "values", "alpha", "beta", "residual", "weights", "channels")
        if weights.keys() != {f"head.{name}" for name in names}:
            return None
        return {"SHARE": weights["head.residual"].shape[1] / weights["head.keys"].shape[1]}

    def fill_cache(self) -> None:
        with as_user_error():
            self.model.head.fill_moving(*self.keys_and_labels(), self.model.fixed_text, self.options.DISSIMILARITY)
