"""A part of DomainNet. Source: Zhou et al., Domain adaptive ensemble learning, TIP 2021; layout of Dassl 0.6.3."""
from ..build import DATASET_REGISTRY
from ..dg.domainnet import Listed


@DATASET_REGISTRY.register()
class miniDomainNet(Listed):  # noqa: N801 - Dassl's spelling
    """126 classes, four domains; DomainNet's images under lists of its own."""

    lists = "splits_mini"
    domains = ["clipart", "painting", "real", "sketch"]

    def splits(self, source, target):
        return {"train_x": self.read(source, "train"), "train_u": self.read(target, "train"),
                "test": self.read(target, "test")}
