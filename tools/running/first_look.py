"""What is said of images of one's own before training: three images with their sentences, and CLIP's accuracy."""
from __future__ import annotations

import logging

import torch

logger = logging.getLogger(__name__)


def first_look(trainer) -> None:
    """Log three (image, sentence) pairs and the zero-shot accuracy; warn where it is not above guessing.

    Args:
        trainer: built on the dataset ImageDir.
    """
    from clip.templates import fill
    from dassl.evaluation.chance import ABOVE, CHANCE, TOO_FEW, versus_guessing
    from dassl.utils.logger import CONSOLE
    from trainers._base import PromptTrainer

    dataset = trainer.dm.dataset
    sentences = fill(dataset.template, dataset.classnames)
    for item in _three(dataset.look):
        logger.info('  %s -> "%s"', item.impath, sentences[item.label], extra=CONSOLE)
    if not isinstance(trainer, PromptTrainer):
        logger.info("%s keeps its own CLIP, if any: zero-shot accuracy is not looked at", type(trainer).__name__,
                    extra=CONSOLE)
        return
    n, accuracy = len(dataset.look), zero_shot_accuracy(trainer, sentences)
    logger.info("Zero-shot accuracy on %d %s images: %.1f %% (guessing: %.1f %%)", n, dataset.look_split,
                100 * accuracy, 100 / dataset.num_classes, extra=CONSOLE)
    verdict = versus_guessing(round(accuracy * n), n, dataset.num_classes)
    if verdict == TOO_FEW:
        logger.info("These are too few images to tell that from guessing.", extra=CONSOLE)
    elif verdict != ABOVE:
        logger.warning("That is %s: class names and labels are probably misaligned, or the names say nothing to this "
                       "CLIP. Look at the three pairs above; --classnames FILE and --template give other words.",
                       "no better than guessing" if verdict == CHANCE else "worse than guessing")


@torch.no_grad()
def zero_shot_accuracy(trainer, sentences: list[str]) -> float:
    """Share of dataset.look whose own sentence is the nearest; no random stream is touched."""
    from clip import encode_texts
    from dassl.data.data_manager import build_data_loader
    from dassl.data.transforms import build_transform

    clip, cfg = trainer.model.clip, trainer.cfg.clone()
    cfg.defrost()
    cfg.INPUT.TRANSFORMS, cfg.INPUT.SIZE, cfg.DATALOADER.NUM_WORKERS = ("normalize",), (clip.image_size,) * 2, 0
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = list(map(float, clip.mean)), list(map(float, clip.std))
    text_features = encode_texts(clip, sentences)                                   # (C, D)
    before, right = torch.get_rng_state(), 0
    for batch in build_data_loader(cfg, data_source=trainer.dm.dataset.look, batch_size=cfg.DATALOADER.TEST.BATCH_SIZE,
                                   tfm=build_transform(cfg, is_train=False), is_train=False):
        with trainer.mixed.autocast():
            image_features = clip.encode_image(batch["img"].to(trainer.device))     # (B, D)
        guesses = (image_features.float() @ text_features.float().T).argmax(dim=1).cpu()
        right += int((guesses == batch["label"]).sum())
    torch.set_rng_state(before)
    return right / len(trainer.dm.dataset.look)


def _three(items: list) -> list:
    """One of the first, middle and last class."""
    by_label = {item.label: item for item in reversed(items)}
    labels = sorted(by_label)
    return [by_label[label] for label in dict.fromkeys((labels[0], labels[len(labels) // 2], labels[-1]))]
