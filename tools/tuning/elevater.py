"""ELEVATER's search: for each learning rate the weight decay is sought coarsely over powers, then ever more finely.

Source: ELEVATER (Li et al., NeurIPS 2022), Computer-Vision-in-the-Wild/Elevater_Toolkit_IC,
vision_benchmark/evaluation/full_model_finetune.py: rates 1e-6 to 1e-1, decays 1e-6 to 1e6 in 97 steps; 7 of them first,
then neighbours of the best at distances 8, 4, 2 and 1. Its first version took the lower neighbour for both; this
takes each, as its later one does. The settings found are then used on training and validation images together
(MERGE_TRAIN_VAL_FINAL_RUN, on by default there, but for 1 shot).
Schedule: SGD with momentum at a constant rate, batches of 64 centre crops, 10 epochs in the search, of which the best
on the validation images counts, and 50 in the final runs (feature.py, config/default.py, resources/model). There theirs
takes the epoch that is best on the test images; here the last one counts.
"""
from __future__ import annotations

from collections.abc import Mapping

from dassl.config import CfgNode
from tools.runs.cell import EPOCHS

RATE, DECAY = "OPTIM.LR", "OPTIM.WEIGHT_DECAY"
RATES, STEPS, COARSE = 6, 97, 16
SHOTS, SEEDS = (5, 20, 50, None), (0, 1, 2)


SCHEDULE = {
    "OPTIM.NAME": "sgd", "OPTIM.MOMENTUM": "0.9", "OPTIM.SGD_NESTEROV": "False", "OPTIM.SGD_DAMPNING": "0",
    "OPTIM.LR_SCHEDULER": "single_step", "OPTIM.STEPSIZE": "(-1,)",         # one step, after the last epoch
    "OPTIM.WARMUP_EPOCH": "-1", "OPTIM.WARMUP_STEPS": "0", EPOCHS: "10", "DATALOADER.TRAIN_X.BATCH_SIZE": "64"}
FINAL_EPOCHS = 50


def schedule(cfg: CfgNode) -> dict[str, str]:
    """The options of every run of the search, besides rate and decay; of a run's config without them.

    Images stay normalised or not, as the method wants them. One of kept features gets one view, as all crops are alike.
    """
    from dassl.engine import TRAINER_REGISTRY

    crops = ["resize_short_side", "center_crop", *(name for name in cfg.INPUT.TRANSFORMS if name == "normalize")]
    section = getattr(TRAINER_REGISTRY.get(cfg.TRAINER.NAME), "section", "")
    views = {f"TRAINER.{section}.VIEWS": "1"} if "VIEWS" in cfg.TRAINER.get(section, {}) else {}
    return {**SCHEDULE, "INPUT.TRANSFORMS": str(tuple(crops)), **views}


def final(shots: int | None) -> dict[str, object]:
    """Options of the runs with the settings that were found, on top."""
    return {EPOCHS: FINAL_EPOCHS, **({} if shots == 1 else {"DATASET.TRAIN_ON_VAL": True})}


def rate(number: int) -> float:
    return 10.0 ** (number - 6)


def decay(number: int) -> float:
    return 10.0 ** (-6 + number / 8)


def wanted(scores: Mapping[tuple[int, int], float]) -> list[tuple[int, int]]:
    """Points (number of the rate, number of the decay) whose scores the search needs next; [] where it has ended.

    Args:
        scores: of the points that have one; higher is better, and of equals the first that was met counts.
    """
    return [point for number in range(RATES) for point in _of_rate(number, scores)]


def _of_rate(number: int, scores: Mapping[tuple[int, int], float]) -> list[tuple[int, int]]:
    coarse = [(number, step) for step in range(0, STEPS, COARSE)]
    if missing := [point for point in coarse if point not in scores]:
        return missing
    best, span = max(coarse, key=scores.__getitem__)[1], 8
    while span:
        beside = [(number, step) for step in dict.fromkeys((max(best - span, 0), min(best + span, STEPS - 1)))
                  if step != best]
        if missing := [point for point in beside if point not in scores]:
            return missing
        for point in beside:
            if scores[point] > scores[number, best]:
                best = point[1]
        span //= 2
    return []
