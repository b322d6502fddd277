"""Datasets, transforms, samplers and loaders. DataManager and DatasetWrapper are imported when first used."""
__all__ = ["DataManager", "DatasetWrapper"]


def __getattr__(name: str):
    if name in __all__:
        from . import data_manager

        return getattr(data_manager, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
