"""A search for the best sub-network on validation images; it resumes and shows what it compares."""
from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import torch
import torch.nn.functional as F

from dassl import stop
from dassl.engine.streams import random_streams, set_random_streams
from dassl.files.whole import write_whole
from trainers.parts.evolution import Evolution, Genes
from trainers.parts.subnet import PARTS, Dims

FILE = "search.json"
Fitness = tuple[float, float]           # accuracy, percent, and cross-entropy
_SHOWN = 5                              # of each generation, in the log

logger = logging.getLogger(__name__)


def rows(genes: Genes) -> Dims:
    """Genes of all blocks' prompts, then updates, then adapters, to the dimensions of each."""
    depth = len(genes) // len(PARTS)
    return [list(genes[start:start + depth]) for start in range(0, len(genes), depth)]


def drawn(evolution: Evolution) -> Genes:
    """Each choice as likely as the others, from torch's global stream; the limit does not count."""
    return tuple(evolution.choices[i] for i in torch.randint(len(evolution.choices), (evolution.length,)).tolist())


def search(trainer, evolution: Evolution, generations: int) -> Genes:
    """The best candidate of the last generation, by accuracy on the validation split with the weights as they are.

    Of equals, the one with the smaller cross-entropy there. Every candidate is compared once. What was compared is kept
    in search.json of the run folder, from which an interrupted search resumes.
    """
    streams, path = random_streams(), Path(trainer.output_dir, FILE)
    key = _key(trainer, evolution, generations)
    seen = _former(path, key)
    trainer.autosave.save(trainer, trainer.epoch, 0)
    trainer.set_model_mode("eval")
    former: list[Genes] = []
    with stop.at_safe_points():
        for generation in range(generations):
            found = evolution.population(generation, former)
            for genes in found:
                if genes not in seen:
                    seen[genes] = _fitness(trainer, genes)
                if stop.requested():
                    _write(path, key, evolution, generation, found, seen)
                stop.check()
            former = sorted(found, key=lambda genes: (-seen[genes][0], seen[genes][1], genes))
            _write(path, key, evolution, generation, former, seen)
            best = "".join(f"\n  {seen[genes][0]:5.1f} %  {evolution.cost(genes):9,d}  {_words(genes)}"
                           for genes in former[:_SHOWN])
            logger.info("Search, generation %d of %d: accuracy on validation images, parameters of at most %s, "
                        "dimensions%s", generation + 1, generations, f"{evolution.limit:,}", best)
    set_random_streams(streams)
    return former[0]


def _fitness(trainer, genes: Genes) -> Fitness:
    """On the validation split."""
    trainer.parts.choose(rows(genes))
    right = images = loss = 0
    for _, scores, label in trainer.answers(trainer.val_loader, "val"):
        right += int((scores.argmax(dim=1) == label).sum())
        loss += float(F.cross_entropy(scores.float(), label, reduction="sum"))
        images += len(label)
    return 100.0 * right / images, loss / images


def _words(genes: Genes) -> str:
    return ", ".join(f"{part} {' '.join(map(str, row))}" for part, row in zip(PARTS, rows(genes), strict=True))


def _key(trainer, evolution: Evolution, generations: int) -> str:
    """Of everything that a search depends on."""
    digest = hashlib.sha256(repr((evolution.choices, evolution.length, evolution.limit, evolution.size,
                                  evolution.parents, evolution.mutated, evolution.crossed, evolution.mutation,
                                  evolution.seed, generations)).encode())
    for name, value in trainer.model.prompt_learner.state_dict().items():
        if name != "visual.chosen":                         # the last one that was drawn or compared
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _former(path: Path, key: str) -> dict[Genes, Fitness]:
    """What an interrupted search of the same key has compared."""
    try:
        stored = json.loads(path.read_text())
        if stored["key"] != key:
            return {}
        seen = {tuple(one["genes"]): (one["accuracy"], one["loss"]) for one in stored["compared"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be used (%s). The search starts from scratch.", path, error)
        return {}
    logger.info("The search resumes from %s, with %d networks compared", path, len(seen))
    return seen


def _write(path: Path, key: str, evolution: Evolution, generation: int, population: list[Genes],
           seen: dict[Genes, Fitness]) -> None:
    def shown(genes: Genes) -> dict:
        return {"genes": list(genes), "accuracy": seen[genes][0], "loss": seen[genes][1],
                "parameters": evolution.cost(genes)}

    content = {"key": key, "limit": evolution.limit, "choices": list(evolution.choices), "generation": generation,
               "genes": f"{', '.join(PARTS)}: the dimensions of all blocks one after the other",
               "population": [shown(genes) for genes in population if genes in seen],
               "compared": [shown(genes) for genes in seen]}
    write_whole(str(path), json.dumps(content, indent=1).encode())
