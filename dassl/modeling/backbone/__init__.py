from .backbone import Backbone
from .build import BACKBONE_REGISTRY, build_backbone
from .resnet import ResNet

__all__ = ["BACKBONE_REGISTRY", "Backbone", "ResNet", "build_backbone"]
