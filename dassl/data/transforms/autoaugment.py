"""The learned policies of AutoAugment, for ImageNet, CIFAR-10 and SVHN. Source: Cubuk et al., CVPR 2019."""
from PIL import Image


class _Policy:
    """PIL image -> PIL image, by a random pair of operations of the policy; the policy is torchvision's."""

    name: str

    def __init__(self):
        from torchvision.transforms import AutoAugment, AutoAugmentPolicy  # takes seconds

        self._policy = AutoAugment(AutoAugmentPolicy(self.name))

    def __call__(self, img: Image.Image) -> Image.Image:
        return self._policy(img)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ImageNetPolicy(_Policy):
    """25 pairs of operations."""

    name = "imagenet"


class CIFAR10Policy(_Policy):
    """25 pairs of operations."""

    name = "cifar10"


class SVHNPolicy(_Policy):
    """25 pairs of operations."""

    name = "svhn"
