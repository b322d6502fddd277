from .transforms import AVAI_CHOICES, INTERPOLATION_MODES, build_transform, plain_transform

__all__ = ["AVAI_CHOICES", "INTERPOLATION_MODES", "build_transform", "plain_transform"]
