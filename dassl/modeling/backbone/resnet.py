"""Residual networks of torchvision, plain and with MixStyle or EFDMix after some stages.

The names are Dassl 0.6.3's: resnet18, resnet50_ms_l12 (MixStyle after stages 1 and 2), resnet18_efdmix_l123 ...
torchvision's weights have the same keys and numbers as the files that Dassl fetched.
"""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dassl.compat.ops import EFDMix, MixStyle
from dassl.compat.ops.styles import StyleMixer
from dassl.utils.errors import UserError

from .backbone import Backbone
from .build import BACKBONE_REGISTRY

DEPTHS = (18, 34, 50, 101, 152)
MIXED_DEPTHS, MIXERS, STAGES = (18, 50, 101), {"ms": MixStyle, "efdmix": EFDMix}, ((1, 2, 3), (1, 2), (1,))


class ResNet(Backbone):
    """(B, 3, H, W) -> (B, out_features). The parts keep torchvision's names.

    Args:
        depth: one of DEPTHS. pretrained: ImageNet's weights, fetched at first use.
        mixer: mixes styles in training, with its default settings, after each of `stages` (1 to 4).
    """

    def __init__(self, depth: int, pretrained: bool = True, mixer: type[StyleMixer] | None = None,
                 stages: Sequence[int] = ()):
        super().__init__()
        network = _torchvisions(depth, pretrained)
        self._out_features = network.fc.in_features
        for name, part in network.named_children():
            if name != "fc":
                self.add_module(name, part)
        self.mixstyle, self.stages = mixer() if mixer is not None else nn.Identity(), tuple(stages)

    def featuremaps(self, x: Tensor) -> Tensor:
        """(B, out_features, H/32, W/32)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for number, stage in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            x = stage(x)
            x = self.mixstyle(x) if number in self.stages else x
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.avgpool(self.featuremaps(x)).flatten(1)


def _torchvisions(depth: int, pretrained: bool):
    from torchvision import models  # takes seconds

    name = f"resnet{depth}"
    try:
        return getattr(models, name)(weights="IMAGENET1K_V1" if pretrained else None)
    except OSError as error:
        raise UserError(f"The weights of {name} cannot be fetched ({error}). Without network, place the file that "
                        "torchvision names in $TORCH_HOME/hub/checkpoints, or set MODEL.BACKBONE.PRETRAINED False "
                        "and give your own as MODEL.INIT_WEIGHTS.") from error


def _register(name: str, depth: int, mixer: type[StyleMixer] | None = None, stages: Sequence[int] = ()) -> None:
    def build(pretrained: bool = True, **kwargs) -> ResNet:
        return ResNet(depth, pretrained, mixer, stages)

    build.__name__ = build.__qualname__ = name
    BACKBONE_REGISTRY.register(build)
    globals()[name] = build


for _depth in DEPTHS:
    _register(f"resnet{_depth}", _depth)
for _depth in MIXED_DEPTHS:
    for _word, _mixer in MIXERS.items():
        for _stages in STAGES:
            _register(f"resnet{_depth}_{_word}_l{''.join(map(str, _stages))}", _depth, _mixer, _stages)
