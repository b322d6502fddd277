from .transforms import AVAI_CHOICES, arithmetic_apart, build_transform, plain_transform

__all__ = ["AVAI_CHOICES", "INTERPOLATION_MODES", "arithmetic_apart", "build_transform", "plain_transform"]


def __getattr__(name: str):
    if name == "INTERPOLATION_MODES":       # made on demand, because it needs torchvision
        from .transforms import INTERPOLATION_MODES

        return INTERPOLATION_MODES
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
