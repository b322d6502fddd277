"""What is said of images of one's own before training: three images with their sentences, CLIP's accuracy, how long.

On a CPU the time of the look and the test is estimated from the first batch.
"""
from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterator

import torch

from dassl.chance import ABOVE, CHANCE, TOO_FEW, versus_guessing

logger = logging.getLogger(__name__)

_BATCH = 16                 # of the look: on a CPU the first answer comes soon
_LONG_SECONDS = 20          # shorter waits are not announced


def first_look(trainer) -> None:
    """Log three (image, sentence) pairs and the zero-shot accuracy; warn where it is not above guessing.

    Args:
        trainer: built on the dataset ImageDir. ZeroshotCLIP's test finds the zero-shot accuracy, so this does not.
    """
    from clip.templates import fill
    from dassl.utils.logger import CONSOLE
    from trainers._base import PromptTrainer
    from trainers.zsclip import ZeroshotCLIP

    dataset = trainer.dm.dataset
    sentences = fill(dataset.template, dataset.classnames)
    for item in _three(dataset.look):
        logger.info('  %s -> "%s"', item.impath, sentences[item.label], extra=CONSOLE)
    if not isinstance(trainer, PromptTrainer):
        logger.info("%s keeps its own CLIP, if any: zero-shot accuracy is not looked at", type(trainer).__name__,
                    extra=CONSOLE)
        return
    n, looks = len(dataset.look), not isinstance(trainer, ZeroshotCLIP)
    tested = 0 if trainer.cfg.TEST.NO_TEST else len(dataset.test)
    batches = _batches(trainer, sentences)
    right, size, seconds = next(batches)
    if trainer.device.type == "cpu" and (estimate := forecast(seconds / size, (n - size) * looks, tested)):
        logger.info(estimate, extra=CONSOLE)
    if not looks:
        batches.close()
        return
    right += sum(more for more, _, _ in batches)
    logger.info("Zero-shot accuracy on %d %s images: %.1f %% (guessing: %.1f %%)", n, dataset.look_split,
                100 * right / n, 100 / dataset.num_classes, extra=CONSOLE)
    verdict = versus_guessing(right, n, dataset.num_classes)
    if verdict == TOO_FEW:
        logger.info("These are too few images to tell that from guessing.", extra=CONSOLE)
    elif verdict != ABOVE:
        logger.warning("That is %s: class names and labels are probably misaligned, or the names say nothing to this "
                       "CLIP. Look at the three pairs above; --classnames FILE and --template give other words.",
                       "no better than guessing" if verdict == CHANCE else "worse than guessing")


def forecast(seconds_per_image: float, look: int, test: int) -> str:
    """How long the look and the test will take, each of so many images; "" if that is soon."""
    seconds = {f"the {what} of {count:,} images": count * seconds_per_image
               for what, count in (("zero-shot check", look), ("test", test)) if count}
    if sum(seconds.values()) < _LONG_SECONDS:
        return ""
    times = ", ".join(f"{what} about {datetime.timedelta(seconds=round(took))}" for what, took in seconds.items())
    return f"On this CPU an image takes {seconds_per_image:.2g} s: {times} (h:mm:ss, measured on the first batch)"


@torch.no_grad()
def _batches(trainer, sentences: list[str]) -> Iterator[tuple[int, int, float]]:
    """Of each batch of dataset.look: how many images are nearest to their own sentence, of how many, after how many
    seconds. No random stream is touched.
    """
    from clip import encode_texts
    from dassl.config import with_values
    from dassl.data.data_manager import build_data_loader
    from dassl.data.transforms import build_transform

    clip = trainer.model.clip
    cfg = with_values(trainer.cfg, {
        "INPUT.TRANSFORMS": ("normalize",), "INPUT.SIZE": (clip.image_size,) * 2, "DATALOADER.NUM_WORKERS": 0,
        "INPUT.PIXEL_MEAN": list(map(float, clip.mean)), "INPUT.PIXEL_STD": list(map(float, clip.std))})
    text_features = encode_texts(clip, sentences)                                   # (C, D)
    before = torch.get_rng_state()
    try:
        start = time.monotonic()
        for batch in build_data_loader(cfg, data_source=trainer.dm.dataset.look, batch_size=_BATCH,
                                       tfm=build_transform(cfg, is_train=False), is_train=False):
            with trainer.mixed.autocast():
                image_features = clip.encode_image(batch["img"].to(trainer.device))     # (B, D)
            guesses = (image_features.float() @ text_features.float().T).argmax(dim=1).cpu()
            yield int((guesses == batch["label"]).sum()), len(guesses), time.monotonic() - start
            start = time.monotonic()
    finally:
        torch.set_rng_state(before)


def _three(items: list) -> list:
    """One of the first, middle and last class."""
    by_label = {item.label: item for item in reversed(items)}
    labels = sorted(by_label)
    return [by_label[label] for label in dict.fromkeys((labels[0], labels[len(labels) // 2], labels[-1]))]
