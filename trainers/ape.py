"""APE: Tip-Adapter on the channels that tell classes apart, each key weighed by how well its text knows it.

Source: APE (Zhu et al., ICCV 2023), authors' code 70460de, main.py, configs. What is easily missed: cosines with texts
keep all channels; beta, alpha and gamma are sought together, in this order, and the first of equals counts; gamma
begins at 0. Difference: the dataset's template in place of their GPT-3 sentences (TEMPLATES takes others). See
`trainers.parts.channels`; `APET` is the trained one.
"""
import torch
import torch.nn.functional as F

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError
from trainers.errors import as_user_error
from trainers.features import add_feature_options
from trainers.parts.cache_search import search
from trainers.parts.channels import ChannelCacheHead
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.teacher import mean_text_features
from trainers.selecting import SelectingTrainer


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.APE = CfgNode()
    c.SHARE = 0.5                       # of the channels, which is kept
    c.DISSIMILARITY = 0.7               # weight of classes' dissimilarity in choosing channels, against the variance
    c.ALPHA, c.BETA, c.GAMMA = 2.0, 1.0, 0.1                 # of votes, of distances, of texts' trust, where not sought
    c.ALPHA_MAX, c.BETA_MAX, c.GAMMA_MAX = 7.0, 7.0, 1.0     # largest values of the search: 20, 200 and GAMMAS values
    c.GAMMAS = 20
    c.SELECT = "val"                    # where the three are sought: "val", "test", or "fixed": they stay as above
    add_feature_options(c, views=10)


@TRAINER_REGISTRY.register()
class APE(SelectingTrainer):
    section, learns = "APE", "closed form"
    bounds = {**SelectingTrainer.bounds, "GAMMAS": (1, 200)}

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        c = cfg.TRAINER.APE
        if not (0 <= c.DISSIMILARITY <= 1 and 0 < c.SHARE <= 1 and min(c.ALPHA, c.BETA, c.GAMMA, c.GAMMA_MAX) >= 0
                and c.GAMMAS >= 1 and min(c.ALPHA_MAX, c.BETA_MAX) > 0.1):
            raise UserError("TRAINER.APE needs DISSIMILARITY in [0, 1], SHARE in (0, 1], ALPHA_MAX and BETA_MAX above "
                            "0.1, GAMMAS of at least 1 and no other number below 0, got "
                            f"{', '.join(f'{k} {v}' for k, v in c.items() if isinstance(v, (int, float)))}.")

    @classmethod
    def build(cls, clip: FrozenCLIP, classes: Classes, options: CfgNode) -> PromptedModel:
        c, text = options, mean_text_features(clip, classes, options.TEMPLATES)
        count = max(1, round(c.SHARE * clip.embed_dim))
        return PromptedModel(clip, text=text, head=ChannelCacheHead(clip, len(classes), count, c.ALPHA, c.BETA))

    @classmethod
    def bound_to_classes(cls, options: CfgNode) -> str:
        return "labelled images of its classes"

    @classmethod
    def options_of(cls, weights: dict) -> dict | None:
        names = {f"head.{name}" for name in ("keys", "values", "alpha", "beta", "channels")}
        return {} if weights.keys() == names else None          # of how many channels some are kept is not in the file

    @torch.no_grad()
    def run_epoch(self) -> None:
        c, model = self.options, self.model
        keys = F.normalize(self.train_features.mean(c.VIEWS), dim=-1)
        with as_user_error():
            model.head.fill_refined(keys, self.train_features.labels, model.fixed_text, c.DISSIMILARITY)
        model.head.trust(c.GAMMA)
        if c.SELECT != "fixed":
            self.seek(*self.selection_images())

    def seek(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        c, head, grids = self.options, self.model.head, []
        gammas = [i * c.GAMMA_MAX / c.GAMMAS for i in range(c.GAMMAS)]
        for gamma in gammas:
            head.trust(gamma)
            found = search(head, features, labels, self.model.fixed_text, self.model.clip, c.BETA_MAX, c.ALPHA_MAX)
            grids.append(found.grid)
        grid = torch.stack(grids, dim=-1)                                         # (200, 20, GAMMAS)
        beta, alpha, gamma = (int(i) for i in torch.unravel_index(grid.argmax(), grid.shape))
        head.alpha.fill_(found.alphas[alpha])
        head.beta.fill_(found.betas[beta])
        head.trust(gammas[gamma])
        self.say_chosen("alpha, beta and gamma", f"beta {found.betas[beta]:.4g}, alpha {found.alphas[alpha]:.4g} and "
                        f"gamma {gammas[gamma]:.4g}", grid.max().item())
