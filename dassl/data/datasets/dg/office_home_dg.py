"""Office-Home, split for domain generalisation. Source: Venkateswara et al., CVPR 2017; layout of Dassl 0.6.3."""
from ..build import DATASET_REGISTRY
from .digits_dg import TrainAndVal


@DATASET_REGISTRY.register()
class OfficeHomeDG(TrainAndVal):
    """65 classes of things in offices and homes."""

    dataset_dir = "office_home_dg"
    domains = ["art", "clipart", "product", "real_world"]
    data_url, archive = "https://drive.google.com/uc?id=1gkbf_KaxoBws-GWT3XIPZ7BnkqbAxIFa", "office_home_dg.zip"
