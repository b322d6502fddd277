"""CLIPAdapter: two layers that change image features, mixed with what they were.

Source: CLIP-Adapter (Gao et al., IJCV 2024), authors' code 08d07f8, clip_adapter.py, which has no text adapter and no
settings. What is easily missed: the mixture is of features as the tower gives them, a fifth of it the adapter's, and
normalised afterwards; a ReLU follows the second layer too.
Difference: epochs take VIEWS random crops of each image in turn, where theirs draw new ones.
"""
from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.features import FeatureTrainer, add_feature_options
from trainers.parts.classes import Classes
from trainers.parts.feature_heads import AdapterHead
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.teacher import mean_text_features


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.CLIPADAPTER = CfgNode()
    c.RATIO = 0.2                       # share of the adapter's features, 0 to 1
    c.REDUCTION = 4                     # width of a feature over that of the hidden layer
    add_feature_options(c, views=20)


@TRAINER_REGISTRY.register()
class CLIPAdapter(FeatureTrainer):
    section, saved_as = "CLIPADAPTER", {"head.down": "fc.0.weight", "head.up": "fc.2.weight"}

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        text = mean_text_features(clip, classes, options.TEMPLATES)
        return PromptedModel(clip, text=text, head=AdapterHead(clip.embed_dim, options.RATIO, options.REDUCTION),
                             saved_as=cls.saved_as)

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        if weights.keys() != set(cls.saved_as.values()):
            return None
        hidden, dim = weights["fc.0.weight"].shape
        return {"REDUCTION": dim // hidden}
