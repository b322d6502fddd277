"""DomainNet for domain adaptation. Source: Peng et al., ICCV 2019; layout of Dassl 0.6.3."""
from ..build import DATASET_REGISTRY
from ..dg.domainnet import Listed


@DATASET_REGISTRY.register()
class DomainNet(Listed):
    """345 classes; the target domains' training lists are the unlabelled images."""

    domains = ["clipart", "infograph", "painting", "quickdraw", "real", "sketch"]

    def splits(self, source, target):
        return {"train_x": self.read(source, "train"), "train_u": self.read(target, "train"),
                "val": self.read(source, "test"), "test": self.read(target, "test")}
