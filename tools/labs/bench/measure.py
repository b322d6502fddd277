"""Both sides of a row in one run, taking turns: medians, ratios with their spread, memory, and what must be done."""
from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from clip.packing import TextTokens
from clip.products import by_onednn
from clip.tuning import Tuners
from tools import machine
from tools.labs.bench import field, floor, memory, steps
from tools.labs.bench.loading import Loading
from tools.labs.bench.rows import PRM, Row, Settings
from tools.labs.bench.timing import PARTS, Watch
from tools.labs.bench.workload import batch_of, build_trainer

SIDES = ("field", "ours")
FEWEST_ROUNDS, MOST_ROUNDS = 3, 50
WARM_UP_BELOW_SECONDS, SHORT_SECONDS = 5.0, 2.0
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def trainer_of(side: str, row: Row, settings: Settings, folder: Path):
    """The trainer that takes the row's step, with the field's towers on its side; None for the product of DVP."""
    if row.trainer == PRM:
        return None
    trainer = build_trainer(row, settings, folder)
    if side == "field":
        field.make_plain(trainer.model.clip)
    return trainer


def step_of(side: str, row: Row, settings: Settings, trainer):
    """A step of a trainer of `trainer_of`, to be called with a `Watch`."""
    if trainer is None:
        product = (steps.field_prm_product if side == "field" else steps.prm_product)(row, settings.device)
        return steps.PRMProduct(row, settings.device, product)
    kind = steps.TrainingStep if row.trains else steps.FieldInferenceStep if side == "field" else steps.InferenceStep
    return kind(trainer, batch_of(row, settings))


def measure(row: Row, settings: Settings, folder: Path, data: dict[str, Loading] | None = None, rounds: int = 5,
            seconds: float = 60.0, with_memory: bool = True, say: Callable[[str], None] = lambda text: None) -> dict:
    """One line of the table.

    Args:
        folder: for placeholders of images.
        data: how each side loads a batch, from `loading.measure`; None for a row without training data.
        rounds: how often both sides are timed; fewer, but not fewer than three, once that took `seconds`.
        with_memory: also measure each side's peak.
        say: is called with what is being done.
    """
    say("building")
    trainers = {side: trainer_of(side, row, settings, folder) for side in SIDES}
    trainer = trainers["ours"]
    if piece := piece_that_fits(row, settings.device, trainers["field"]):
        trainers["field"].model.clip.piece = piece
    both = {side: step_of(side, row, settings, trainers[side]) for side in SIDES}
    library = "oneDNN" if trainer and trainer.mixed.onednn else "F.linear"
    rates = [_rate(settings, library)]
    times = take_turns(both, settings.device, rounds, seconds, say)
    rates.append(_rate(settings, library))
    rate, shape = max(rates)
    needed = floor.operations(row, trainer)
    notes = _notes(row, settings, piece)
    result = {**asdict(row), "rounds": len(times["ours"]), "notes": notes,
              "matrix_rate": {"gflops": rate / 1e9, "shape": shape, "library": library}}
    for side in SIDES:
        result[side] = _summary(times[side], row.batch, settings.device, data and data[side])
    result["ratio"] = spread(*(result[side].pop("each_ms") for side in SIDES))
    text_alone = row.learns_text and trainer.model.brick("visual") is None
    result["text_ratio"] = spread(*([t["text"] + t["backward"] for t in times[side]] for side in SIDES)) \
        if text_alone else None
    result["operations"] = {part: asdict(ops) for part, ops in needed.items()}
    for side in SIDES:
        result[side]["peak_memory_mb"] = None
        if with_memory:
            say(f"memory, {side}")
            result[side]["peak_memory_mb"] = _peak(side, row, settings, folder, piece)
    return result


def _rate(settings: Settings, library: str) -> tuple[float, str]:
    """Of the products of the library that our side of a row takes."""
    multiply = by_onednn if library == "oneDNN" else F.linear
    return floor.matrix_rate(settings.device, DTYPES[settings.precision], multiply)


def take_turns(steps: dict[str, Callable], device: str, rounds: int, seconds: float,
               say: Callable[[str], None]) -> dict[str, list[dict[str, float]]]:
    """{side: parts in ms of each round}; who goes first changes from round to round.

    Starting up shows in a first step, so ours takes one before, and a first round of short steps is thrown away. Very
    short steps are taken more often.
    """
    steps["ours"](Watch(device))
    start, done = time.monotonic(), []

    def goes_on() -> bool:
        passed = time.monotonic() - start
        if len(done) < rounds:
            return len(done) < FEWEST_ROUNDS or passed < seconds
        return len(done) < MOST_ROUNDS and passed < min(SHORT_SECONDS, seconds)

    while goes_on():
        say(f"round {len(done) + 1}")
        done.append(one_round(steps, device, ours_first=len(done) % 2 == 1))
        if len(done) == 1 and rounds > 1 and time.monotonic() - start < WARM_UP_BELOW_SECONDS:
            done = [one_round(steps, device, ours_first=False)]
    return {side: [times[side] for times in done] for side in steps}


def one_round(steps: dict[str, Callable], device: str, ours_first: bool) -> dict[str, dict[str, float]]:
    """{side: {part: ms}} of one step of each."""
    times = {}
    for side in SIDES[::-1] if ours_first else SIDES:
        watch = Watch(device)
        steps[side](watch)
        times[side] = watch.parts()
    return times


def spread(field: list[float], our: list[float]) -> dict[str, float]:
    """Median, least and largest of the rounds' ratios."""
    ratios = [f / o for f, o in zip(field, our, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def piece_that_fits(row: Row, device: str, trainer) -> int:
    """Classes that the field's text tower takes at once; 0 for all, where half of the free memory holds them."""
    if not row.trains or not row.learns_text:                # what tunes at test time is never in pieces
        return 0
    a_class = (_kept(trainer.model, 4) - _kept(trainer.model, 2)) / 2
    passes, free = row.batch if trainer.model.is_conditional else 1, free_memory(device)
    if a_class * row.classes * passes < free / 2:
        return 0
    return max(1, min(row.classes, 100, int(free / 4 / a_class)))


def free_memory(device: str) -> int:
    """Bytes; 4 GB where the system does not tell."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return machine.free_memory() or 4 * 2 ** 30


def _kept(model, classes: int) -> int:
    """Bytes that autograd keeps of the text pass of some classes, of one image if it has its own; weights included."""
    sizes: dict[int, int] = {}
    text, tuner = model.brick("text"), Tuners(model.brick("text_tuner")).select(slice(0, classes))
    found = text(torch.zeros(1, model.clip.embed_dim, device=model.mean.device)) if model.is_conditional else text()

    def keep(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept = [model.clip.encode_text(TextTokens(own.embeddings[:classes], own.eot[:classes], own.prefix), tuner)
                for own in (found if isinstance(found, list) else [found])]
    del kept
    return sum(sizes.values())


def _summary(times: list[dict[str, float]], batch: int, device: str, loading: Loading | None) -> dict:
    working = [sum(parts.values()) for parts in times]
    waits = [loading.waits(device, ms) if loading else 0.0 for ms in working]
    each = [ms + wait for ms, wait in zip(working, waits)]
    step = statistics.median(each)
    parts = {part: statistics.median(t[part] for t in times) for part in PARTS}
    data = statistics.median(waits) if loading else None
    return {"ms": {"data": data, **parts, "step": step}, "images_per_s": batch / step * 1e3, "each_ms": each}


def _peak(side: str, row: Row, settings: Settings, folder: Path, piece: int) -> float | None:
    """MB; for a field's step that does not fit, along the line through two smaller numbers of classes."""
    def of(C: int) -> float | None:
        smaller = replace(row, classes=C)
        if settings.device == "cuda":
            trainer = trainer_of(side, smaller, settings, folder)
            return memory.peak_on_gpu_mb(step_of(side, smaller, settings, trainer))
        return memory.peak_mb(smaller, settings, side)

    if side == "ours" or not piece:
        return of(row.classes)
    few, more = _fewer_classes(row.classes)
    low, high = of(few), of(more)
    return None if low is None else low + (high - low) * (row.classes - few) / (more - few)


def _fewer_classes(C: int) -> tuple[int, int]:
    return max(2, C // 20), max(4, C // 10)


def _notes(row: Row, settings: Settings, piece: int) -> list[str]:
    notes = []
    if piece:
        few, more = _fewer_classes(row.classes)
        notes.append(f"The field's step does not fit this memory: its text was timed {piece} classes at a time with a "
                     "fixed upstream gradient (the same work, all in `text`), and its peak memory is on the "
                     f"line through {few} and {more} classes.")
    if row.views:
        notes.append(f"A test batch of {row.views} views of each image, one step for each.")
    elif not row.trains and row.method:
        notes.append("A test batch; ours encodes the text once before the first, which is in neither time nor memory.")
    if row.method and not row.method.section and settings.precision != "fp32":
        notes.append(f"{row.trainer} always runs fp32.")
    return notes
