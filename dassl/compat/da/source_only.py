"""Cross-entropy on labelled source images alone: the baseline of domain adaptation."""
from dassl.compat.dg.vanilla import CrossEntropy
from dassl.engine.build import TRAINER_REGISTRY
from dassl.engine.trainer import TrainerXU


@TRAINER_REGISTRY.register()
class SourceOnly(CrossEntropy, TrainerXU):
    """The unlabelled batch is drawn and not looked at, so that an epoch is as long as other methods'."""
