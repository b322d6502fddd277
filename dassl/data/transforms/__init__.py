from . import transforms
from .transforms import AVAI_CHOICES, arithmetic_apart, build_transform, plain_transform

__getattr__ = transforms.__getattr__        # INTERPOLATION_MODES, made on demand because it needs torchvision
