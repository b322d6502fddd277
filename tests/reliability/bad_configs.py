"""Wrong keys, types and values of the config: on the command line and in yaml files."""
from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from dassl.engine import TRAINER_REGISTRY
from tools import train

from .cases import Case, some

# Values of any type for any key; what a key takes must lead to a run, anything else to a refusal.
VALUES = ("-1", "0", "1000000", "1e30", "1e38", "nan", "-inf", "99999999", "''", "None",
          "True", "[]", "[-1]", "(0, 0)", "{}", "{'a': 1}",
          "1.5", "a", "__import__('os').system('touch pwned')", "ñ\u202e", "'x' * 10", "[1, 'a', None]", "../..", "\\")
# What these mean takes long or much memory by right, or is where the run writes.
LEFT_ALONE = ("OUTPUT_DIR", "DATASET.ROOT", "RESUME", "OPTIM.MAX_EPOCH", "USE_CUDA", "VERBOSE", "SEED", "VERSION")


def leaves(node, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def command(root: Path, output: Path, trainer: str, *opts: str) -> list[str]:
    """A run that ends in a second."""
    return ["--root", str(root), "--output-dir", str(output), "--trainer", trainer, "--seed", "1",
            "--config-file", f"configs/trainers/{trainer}/tiny.yaml", "--dataset-config-file",
            "configs/datasets/digits.yaml", "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "1",
            "DATALOADER.TEST.BATCH_SIZE", "1000", "TEST.NO_TEST", "True", *opts]


def options(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    """Every so often a key of every section of the engine or of a method's own, with a value of any kind."""
    rng, root = random.Random(seed), folder / "data"
    keys = [key for key in leaves(train.setup_cfg(train.parser().parse_args(["--trainer", "CoOp"])))
            if key not in LEFT_ALONE]
    methods = sorted(name for name in TRAINER_REGISTRY.registered_names()
                     if TRAINER_REGISTRY.get(name).__module__.startswith("trainers."))
    for number in range(some(200, scale)):
        trainer = rng.choice(methods)
        section = f"TRAINER.{TRAINER_REGISTRY.get(trainer).section}."
        of_method = [key for key in keys if key.startswith(section)]
        of_engine = [key for key in keys if not key.startswith("TRAINER.")]
        key, value = rng.choice(of_method if number % 2 and of_method else of_engine), rng.choice(VALUES)
        words = command(root, folder / "runs" / f"o{number}", trainer, key, value)
        yield Case("config values", f"{trainer} {key} {value}", lambda words=words: train.cli(words), folder / "runs")


def unknown_keys(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    """Keys with a letter too many, too few, or of another case."""
    rng = random.Random(seed)
    keys = list(leaves(train.setup_cfg(train.parser().parse_args(["--trainer", "CoOp"]))))
    for number in range(some(40, scale)):
        key = rng.choice(keys)
        at = rng.randrange(len(key))
        wrong = rng.choice((key[:at] + key[at + 1:], key[:at] + "Q" + key[at:], key.lower(), key + ".X", "." + key))
        if wrong in keys:
            continue
        words = command(folder / "data", folder / "runs" / f"k{number}", "CoOp", wrong, "1")
        yield Case("config keys", wrong, lambda words=words: train.cli(words), folder / "runs", accepts=False)


YAMLS = (
    b"", b"\x00\xff\xfe", b"OPTIM: [", b"OPTIM: 3", b"- a\n- b", b"a: &a [*a]",
    b"OPTIM: {LR: !!python/object/apply:os.system [touch pwned]}", b"OPTIM: {LR: 0.1, LR: 0.2}", b"? {a: 1}\n: b",
    b"1: 2", b"OPTIM: null", b"OPTIM: {LR: null}", b"TRAINER: CoOp", b"INPUT: {SIZE: 32}",
    b"INPUT: {TRANSFORMS: normalize}", b"\tOPTIM:\n\t\tLR: 1", "OPTIM: {LR: é}".encode("latin-1"),
    b"%YAML 9.9\n---\nOPTIM: {}", b"!!binary |\n R0lG", b"OPTIM: {LR: 2020-01-01}",
    b"DATALOADER: {TRAIN_X: {BATCH_SIZE: 3.5}}", b"OPTIM: {MAX_EPOCH: '3'}", b"x" * 100_000, b"{" * 500,
)


def yaml_files(folder: Path, scale: float = 1.0, seed: int = 0) -> Iterator[Case]:
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(random.Random(seed).sample(YAMLS, some(len(YAMLS), min(scale, 1)))):
        path = folder / f"{number}.yaml"
        path.write_bytes(content)
        for flag in ("--config-file", "--dataset-config-file"):
            words = command(folder / "data", folder / "runs" / f"y{number}{flag[2]}", "CoOp")
            words[words.index(flag) + 1] = str(path)
            yield Case("yaml files", f"{flag} {content[:50]!r}", lambda words=words: train.cli(words), folder / "runs")
