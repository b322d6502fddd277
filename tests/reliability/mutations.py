"""Break central lines on purpose: each change below must make the tests fail.

    python -m tests.reliability.mutations              all of them, one after the other; takes minutes
    python -m tests.reliability.mutations "loss sign"  some

Every change is made in a copy of the checkout, where the tests named beside it are run; before that they must pass
there unchanged.
"""
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutation:
    """`old`, which stands in `file` exactly once, becomes `new`; `tests` are expected to notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


TRAINERS, PARTS, CLIP = ("tests/test_every_trainer.py",), ("tests/parts",), ("tests/clip",)

MUTATIONS = (
    Mutation("loss sign", "trainers/method.py", 'return {"ce": F.cross_entropy(out.logits, batch["label"])}',
             'return {"ce": -F.cross_entropy(out.logits, batch["label"])}', TRAINERS),
    Mutation("inter-dispersion sign", "trainers/parts/losses.py", ".mul(-t).exp()", ".mul(t).exp()", PARTS),
    Mutation("intra-dispersion sum", "trainers/parts/losses.py",
             "return F.mse_loss(image_features.float(), prototypes.float())",
             'return F.mse_loss(image_features.float(), prototypes.float(), reduction="sum")', PARTS),
    Mutation("prompt position, text", "trainers/parts/text_prompt.py", '{"end": n, "middle": n // 2, "front": 0}',
             '{"end": n, "middle": n - n // 2 + 1, "front": 1}', PARTS),
    Mutation("prompt position, image", "trainers/parts/visual_prompt.py",
             "return torch.cat([x[:, :1], tokens, x[:, 1 +", "return torch.cat([x[:, :1], tokens.flip(1), x[:, 1 +",
             (*PARTS, "tests/test_trainers.py")),
    Mutation("end-of-text index", "trainers/parts/text_prompt.py", "self.eot - prefix.shape[-2]",
             "self.eot - 1 - prefix.shape[-2]", PARTS),
    Mutation("end-of-text index of sentences", "clip/text.py", "eot = ids.argmax(dim=-1)",
             "eot = ids.argmax(dim=-1) - 1", (*CLIP, *PARTS)),
    Mutation("causal mask of packed rows", "clip/packing.py", "token[:, None, :] <= token[:, :, None]",
             "token[:, None, :] < token[:, :, None] + 2", CLIP),
    Mutation("PRM normalisation", "trainers/parts/label_mapping.py", "(self.counts.double() / total.clamp(min=1))",
             "(self.counts.double() / total.max().clamp(min=1))", PARTS),
    Mutation("PRM votes of other classes", "trainers/parts/label_mapping.py",
             "device=labels.device), labels].topk(", "device=labels.device), labels - 1].topk(", PARTS),
    Mutation("schedule off by one", "dassl/optim/lr_scheduler.py", "if self.last_epoch >= self.warmup_epoch:",
             "if self.last_epoch > self.warmup_epoch:", ("tests/engine/test_lr_scheduler.py",)),
    Mutation("label shift", "dassl/data/data_manager.py", 'output = {"label": item.label,',
             'output = {"label": max(item.label - 1, 0),', ("tests/engine/test_data.py",)),
    Mutation("split order", "datasets/few_shot.py",
             '            drawn = {"train": dataset.generate_fewshot_dataset(train, num_shots=shots)}\n'
             "            if val is not None:\n"
             '                drawn["val"] = dataset.generate_fewshot_dataset(val, num_shots=min(shots, 4))\n',
             "            drawn = {}\n            if val is not None:\n"
             '                drawn["val"] = dataset.generate_fewshot_dataset(val, num_shots=min(shots, 4))\n'
             '            drawn["train"] = dataset.generate_fewshot_dataset(train, num_shots=shots)\n',
             ("tests/datasets/test_few_shot.py", "tests/datasets/test_few_shot_everywhere.py")),
    Mutation("prototype normalisation", "trainers/parts/prototypes.py",
             'return sums / checked(counts, "A prototype")[:, None]',
             "return torch.nn.functional.normalize(sums, dim=1)", (*PARTS, "tests/test_trainers.py")),
    Mutation("template", "clip/templates.py", 'name.replace("_", " ")', "name",
             (*CLIP, *PARTS, "tests/test_trainers.py")),
    Mutation("template of a dataset", "trainers/_base.py",
             'getattr(dataset, "template", None) or DEFAULT', "DEFAULT",
             ("tests/test_trainers.py",)),
    Mutation("eval mode", "dassl/engine/trainer.py", 'self.set_model_mode("eval")\n        self.evaluator.reset()',
             "self.evaluator.reset()", ("tests/engine", "tests/test_trainers.py")),
    Mutation("frozen towers train", "clip/towers.py", "return super().train(False)", "return super().train(mode)",
             CLIP),
    Mutation("features not of unit norm", "clip/towers.py",
             "want, joint).float()\n        return F.normalize(features, dim=-1)",
             "want, joint).float()\n        return (features)", CLIP),
)


def copy_of_checkout(folder: Path) -> Path:
    """The files that git knows or would add, in `folder`."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True,
                            check=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def apply(mutation: Mutation, root: Path) -> str:
    """Make the change; returns the file as it was."""
    path = root / mutation.file
    before = path.read_text(encoding="utf-8")
    if before.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.name}: {mutation.old!r} stands {before.count(mutation.old)} times in "
                         f"{mutation.file}; it must stand there once. Bring tests/reliability/mutations.py up to date.")
    path.write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
    return before


def run_tests(root: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess:
    """pytest in the copy, whose packages come before installed ones; stops at the first failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly",
               "-m", "not slow", *tests]
    return subprocess.run(command, cwd=root, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})


def main(argv: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*", help="which changes (default: all)")
    names = p.parse_args(argv).names
    if unknown := set(names) - {m.name for m in MUTATIONS}:
        p.error(f"no such change: {', '.join(unknown)}. There are {', '.join(m.name for m in MUTATIONS)}")
    chosen = [m for m in MUTATIONS if not names or m.name in names]
    survived = []
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        root = copy_of_checkout(Path(folder))
        unchanged = run_tests(root, tuple(dict.fromkeys(test for m in chosen for test in m.tests)))
        if unchanged.returncode:
            print(unchanged.stdout[-3000:], "The tests fail before anything is changed.", sep="\n")
            return 1
        for m in chosen:
            before, start = apply(m, root), time.monotonic()
            reply = run_tests(root, m.tests)
            (root / m.file).write_text(before, encoding="utf-8")
            failed = [line for line in reply.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            noticed = reply.returncode == 1 and failed
            print(f"{m.name}: " + (failed[0].split(" - ")[0] if noticed else f"NOT NOTICED (exit {reply.returncode})"),
                  f"({time.monotonic() - start:.0f} s)", flush=True)
            survived += [] if noticed else [m.name]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} changes were noticed.")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
