"""Names that modules of Dassl 0.6.3 import and public code takes from there, imported here when they are asked for."""
from __future__ import annotations

import pkgutil
from collections.abc import Callable

_PLACES = {
    "dassl.data.data_manager": """torch.utils.data:Dataset=TorchDataset torchvision.transforms=T
        dassl.data.transforms:INTERPOLATION_MODES""",
    "dassl.data.transforms.transforms": " ".join(f"torchvision.transforms:{name}" for name in (
        "Resize", "Compose", "ToTensor", "Normalize", "CenterCrop", "RandomCrop", "ColorJitter", "RandomApply",
        "GaussianBlur", "RandomGrayscale", "RandomResizedCrop", "RandomHorizontalFlip", "InterpolationMode")),
    "dassl.engine.trainer": """numpy=np collections:OrderedDict tqdm:tqdm torch.utils.tensorboard:SummaryWriter
        dassl.utils:tolist_if_not dassl.utils:load_checkpoint dassl.utils:save_checkpoint
        dassl.utils:resume_from_checkpoint dassl.utils:load_pretrained_weights
        dassl.modeling:build_head dassl.modeling:build_backbone""",
    "dassl.evaluation.evaluator": """numpy=np sklearn.metrics:f1_score
        sklearn.metrics:confusion_matrix""",
    "dassl.optim.lr_scheduler": "torch torch.optim.lr_scheduler:_LRScheduler",
    "dassl.utils.tools": "time errno datetime PIL",
    "dassl.utils.torchtools": "pickle shutil functools:partial collections:OrderedDict",
}


def passed_on(module: str) -> Callable[[str], object]:
    """Its `__getattr__`; any other name is an AttributeError as always."""
    places = dict(_name_and_place(word) for word in _PLACES[module].split())

    def __getattr__(name: str):
        if name in places:
            return pkgutil.resolve_name(places[name])
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__


def _name_and_place(word: str) -> tuple[str, str]:
    """`module:item`, whose name is the item's, or `place=name`."""
    place, _, name = word.partition("=")
    return name or place.rpartition(":")[2], place
