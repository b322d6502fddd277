"""The learned policies of AutoAugment, for ImageNet, CIFAR-10 and SVHN. Source: Cubuk et al., CVPR 2019."""
from PIL import Image


class _Policy:
    """PIL image -> PIL image, by one of the policy's 25 pairs of operations; the policies are torchvision's."""

    name: str

    def __init__(self):
        from torchvision.transforms import AutoAugment, AutoAugmentPolicy  # takes seconds

        self._policy = AutoAugment(AutoAugmentPolicy(self.name))

    def __call__(self, img: Image.Image) -> Image.Image:
        return self._policy(img)


class ImageNetPolicy(_Policy):
    name = "imagenet"


class CIFAR10Policy(_Policy):
    name = "cifar10"


class SVHNPolicy(_Policy):
    name = "svhn"
