"""WiSEFT (WiSE-FT): the image tower and a classifier are fine-tuned, then mixed with those of zero-shot CLIP.

Source: Robust Fine-Tuning of Zero-Shot Models (Wortsman et al., CVPR 2022), authors' code mlfoundations/wise-ft
58b7a4b, src/wise_ft.py, models/finetune.py and zeroshot.py. What is easily missed:
- All weights are mixed, the classifier's too: (1 - ALPHA) theta_0 + ALPHA theta_1. `tools/interpolate.py` tests a run
  at shares from 0 to 1; without images to choose it on, the paper recommends 0.5.
- The classifier begins as mean text features (for ImageNet of CLIP's 80 sentences) times CLIP's scale, with a bias of
  0; both learn.
- The norm of all gradients together is cut to 1.
"""
from dassl.config import CfgNode
from dassl.engine import TRAINER_REGISTRY
from trainers.fine_tuning import ImageTowerTuner, add_options


def extend_cfg(cfg: CfgNode) -> None:
    c = cfg.TRAINER.WISEFT = CfgNode()
    c.LEARN_HEAD = True                 # the classifier learns too, as published; False: texts stay the classifier, the
                                        # tower serves any classes and can be merged into a plain CLIP
    add_options(c, alpha=0.5, max_norm=1.0)


@TRAINER_REGISTRY.register()
class WiSEFT(ImageTowerTuner):
    section, schedule_per = "WISEFT", "iteration"
