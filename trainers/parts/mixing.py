"""Training images that are mixed with each other: mixup and CutMix, one of them for a whole batch."""
from __future__ import annotations

import torch
from torch import Tensor

from clip import InputError


class Mixing:
    """Mixes every image of a batch with the next one, and their labels alike.

    Args:
        mixup, cutmix: of Beta(a, a), from which the share is drawn, for the batch; 0 leaves that way out. With both,
            either is as likely.
    Source: mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), torchvision's own; timm's Mixup in mode
    "batch" has the same shares, and takes the images in reverse in place of the next one.
    Raises:
        InputError: a negative number, or none above 0.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int):
        if min(mixup, cutmix) < 0 or max(mixup, cutmix) == 0:
            raise InputError(f"mixup and CutMix must be at least 0, one of them above, got {mixup} and {cutmix}.")
        from torchvision.transforms import v2

        self.ways = [make(alpha=alpha, num_classes=num_classes) for make, alpha in ((v2.MixUp, mixup),
                                                                                    (v2.CutMix, cutmix)) if alpha]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) and (B,) -> mixed images and their shares of classes (B, C); from torch's global stream."""
        way = self.ways[int(torch.randint(len(self.ways), ()))]
        return way(images, labels)
