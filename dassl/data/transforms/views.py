"""Several views of each test image, made by the loader: its plain form first, then random crops of it."""
from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from dassl.config import CfgNode

from .transforms import arithmetic_apart, build_transform


class Views:
    """An image to V views (V, 3, H, W): as it is tested elsewhere, then V - 1 random crops, mirrored half of the time.

    Drawn from the stream that the loader seeds for each image, whatever its batch and worker.

    Args:
        augmix: mix each crop with chains of other augmentations (torchvision's AugMix at severity 1).
    Source: TPT (Shu et al., NeurIPS 2022), data/datautils.py AugMixAugmenter: crops of 8 to 100 %, bilinear.
    """

    draws = True

    def __init__(self, cfg: CfgNode, count: int, augmix: bool = False):
        from torchvision import transforms as T

        steps = [T.RandomResizedCrop(tuple(cfg.INPUT.SIZE)), T.RandomHorizontalFlip()]
        steps += [T.AugMix(severity=1, all_ops=False)] if augmix else []
        steps += [T.ToTensor()]
        steps += [T.Normalize(cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD)] if "normalize" in cfg.INPUT.TRANSFORMS else []
        self.plain, self.count = build_transform(cfg, is_train=False), count
        self.augment, self.together = arithmetic_apart(T.Compose(steps)) or (T.Compose(steps), torch.stack)

    def __call__(self, image: Image.Image) -> Tensor:
        crops = self.together([self.augment(image) for _ in range(self.count - 1)])
        return torch.cat([self.plain(image)[None], crops])
