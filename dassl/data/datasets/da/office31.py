"""Office-31 for domain adaptation. Source: Saenko et al., ECCV 2010; layout of Dassl 0.6.3."""
from ..build import DATASET_REGISTRY
from .office_home import ByFolder


@DATASET_REGISTRY.register()
class Office31(ByFolder):
    """31 classes of things in offices."""

    dataset_dir = "office31"
    domains = ["amazon", "webcam", "dslr"]
