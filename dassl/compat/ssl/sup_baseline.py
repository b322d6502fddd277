"""Cross-entropy on labelled images alone: the baseline of semi-supervised learning."""
from dassl.compat.da.source_only import SourceOnly
from dassl.engine.build import TRAINER_REGISTRY


@TRAINER_REGISTRY.register()
class SupBaseline(SourceOnly):
    """As SourceOnly, on labelled and unlabelled images of one domain."""
