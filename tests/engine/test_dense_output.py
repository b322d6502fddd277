"""A dataset whose items have a mask instead of a label, from its reader to its measure in results.json."""
import json
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from dassl.data import DatasetWrapper
from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.task import Task
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.evaluation import EVALUATOR_REGISTRY, EvaluatorBase
from trainers._base import PromptTrainer
from trainers.parts.prompted_model import PromptedModel

SIDE = 4                                                # patches of the tower's grid


class ReadsMasks(DatasetWrapper):
    """The left half of a mask is the image's class; the right half is class 0."""

    def __getitem__(self, idx):
        item = super().__getitem__(idx)
        mask = torch.zeros(SIDE, SIDE, dtype=torch.int64)
        mask[:, :SIDE // 2] = item["label"]
        return {**item, "label": mask}


class Overlap(EvaluatorBase):
    """The share of places with the right class, and the mean intersection over union."""

    def __init__(self, cfg, **kwargs):
        super().__init__(cfg)
        self.reset()

    def reset(self):
        self.pairs = []

    def process(self, mo, gt):
        self.pairs.append((mo.argmax(1).flatten(), gt.flatten()))

    def evaluate(self):
        found, wanted = (torch.cat(parts) for parts in zip(*self.pairs))
        overlaps = [((found == c) & (wanted == c)).sum() / ((found == c) | (wanted == c)).sum()
                    for c in wanted.unique()]
        return OrderedDict(miou=100 * torch.stack(overlaps).mean().item(),
                           right=100 * (found == wanted).float().mean().item())


class Decoder(nn.Module):
    """A class for every token of an image."""

    knows_classes = True

    def __init__(self, clip, num_classes):
        super().__init__()
        self.classify = nn.Linear(clip.embed_dim, num_classes)

    def forward(self, image_features, text_features, clip):
        scores = self.classify(10 * image_features[:, 1:])                        # (B, P, C)
        masks = scores.transpose(1, 2).unflatten(2, (SIDE, SIDE))                 # (B, C, SIDE, SIDE)
        return scores.mean(dim=1), {"masks": masks}


class Segments(PromptTrainer):
    @classmethod
    def build(cls, clip, classes, options):
        return PromptedModel(clip, head=Decoder(clip, len(classes)), want="tokens")

    def loss(self, out, batch):
        return {"ce": F.cross_entropy(out.aux["masks"], batch["label"])}

    def measures(self, out, batch):
        return {"right": 100 * (out.aux["masks"].argmax(1) == batch["label"]).float().mean()}

    @classmethod
    def predict(cls, model, images, options):
        return model(images).aux["masks"]


def test_masks_are_read_learned_measured_and_recorded(make_cfg, tmp_path):
    make_cfg("CoOp")                                    # registers the toy set
    toy = DATASET_REGISTRY.get("Toy")
    DATASET_REGISTRY.register(type("ToyMasks", (toy,), {"task": Task(ReadsMasks, "Overlap")}), force=True)
    EVALUATOR_REGISTRY.register(Overlap, force=True)
    TRAINER_REGISTRY.register(Segments, force=True)
    cfg = make_cfg("CoOp", "OPTIM.MAX_EPOCH", 15, "OPTIM.LR", 0.01, dataset="ToyMasks").clone()
    cfg.defrost()
    cfg.TRAINER.NAME = "Segments"
    trainer = build_trainer(cfg)
    losses, step = [], trainer.forward_backward
    trainer.forward_backward = lambda batch: losses.append(step(batch)) or losses[-1]
    trainer.train()
    assert losses[-1]["loss"] < 0.8 * losses[0]["loss"]
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(record["metrics"]) == ["miou", "right"] and record["num_test"] == 24
    assert trainer.test() == record["metrics"]["miou"] > 15
