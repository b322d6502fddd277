from .backbone import Backbone
from .build import BACKBONE_REGISTRY, build_backbone
from .resnet import ResNet
