"""Everything that can be said of a checkpoint file: its format, its entries, a row for each weight."""
from __future__ import annotations

import zipfile
from pathlib import Path


def describe(path: str) -> dict:
    """Everything that `show` says of a file, as plain data."""
    from dassl.engine.checkpoint_files import read_weights
    from tools.checkpoint_kinds import is_fixed, kind_of

    state = read_weights(path)
    weights, kind = state["state_dict"], kind_of(state["state_dict"], state.get("trainer"))
    all_fixed = all(map(is_fixed, weights))
    return {
        "file": path, "bytes": Path(path).stat().st_size, "format": format_of(path), "epoch": state.get("epoch"),
        "val_result": plain_number(state.get("val_result")),
        "other_entries": {name: told(value) for name, value in state.items()
                          if name not in ("state_dict", "epoch", "val_result")},
        "looks_like": {"method": kind.method, "names": kind.whose, "trainer": kind.trainer,
                       "options": list(kind.options), "remark": kind.remark},
        "weights": [row(name, value, is_fixed(name) and not all_fixed) for name, value in weights.items()],
    }


def row(name: str, value, fixed: bool) -> dict:
    if not hasattr(value, "shape"):
        return {"name": name, "shape": None, "dtype": type(value).__name__, "fixed": fixed}
    told = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch."), "fixed": fixed}
    if value.is_meta or value.is_quantized or str(value.layout) != "torch.strided" or \
            value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return told                                            # no plain row of numbers, or more than the file has
    numbers = (value.detach().abs() if value.is_complex() else value.detach()).double().flatten()
    facts = {"min": numbers.min(), "mean": numbers.mean(), "max": numbers.max(), "norm": numbers.norm()} \
        if len(numbers) else {}
    return {**told, **{key: float(number) for key, number in facts.items()},
            "not_finite": int((~numbers.isfinite()).sum())}


def format_of(path: str) -> str:
    import tarfile

    if path.endswith(".safetensors"):
        return "safetensors"
    if zipfile.is_zipfile(path):
        return "PyTorch, zip (1.6 and later)"
    return "PyTorch, tar (0.1)" if tarfile.is_tarfile(path) else "PyTorch, pickles in a row (before 1.6)"


def plain_number(value):
    return value.item() if hasattr(value, "item") else value


def told(value) -> str:
    """One phrase for what a checkpoint holds besides weights."""
    from dassl.compat.restricted_pickle import Inert

    if isinstance(value, Inert):
        return "an object, not read"
    if isinstance(value, dict):
        unread = sum(isinstance(item, Inert) for item in value.values())
        return f"{', '.join(map(str, value)) or 'empty'}{f' ({unread} objects, not read)' if unread else ''}"
    return "none" if value is None else str(plain_number(value))[:80]


def report(facts: dict) -> str:
    from tabulate import tabulate

    kind = facts["looks_like"]
    options = " ".join(kind["options"])
    lines = [facts["file"], f"  {facts['format']}, {facts['bytes']:,} bytes",
             f"  epoch {facts['epoch']}, val_result {facts['val_result']}",
             *(f"  {name}: {text}" for name, text in facts["other_entries"].items()),
             f"  looks like {kind['method']}, with {kind['names']} names{': ' * bool(kind['remark'])}{kind['remark']}"]
    if kind["trainer"]:
        lines.append(f"  read by --trainer {kind['trainer']}{' with ' + options if options else ''}; "
                     "options that shapes do not tell keep their defaults")
    bad = sum(weight.get("not_finite", 0) for weight in facts["weights"])
    if bad:
        lines.append(f"  {bad} numbers are infinite or NaN")
    rows = [[w["name"], "x".join(map(str, w["shape"])) if w["shape"] else "-", w["dtype"],
             *(f"{w[key]:.4g}" if key in w else "" for key in ("min", "mean", "max", "norm")),
             "fixed, not loaded" if w["fixed"] else ""] for w in facts["weights"]]
    table = tabulate(rows, headers=["weight", "shape", "type", "min", "mean", "max", "norm", ""], disable_numparse=True)
    return "\n".join([*lines, "", table])


def without_objects(value):
    """Plain data: NumPy's numbers as Python's, unread objects as None."""
    from dassl.compat.restricted_pickle import Inert

    if isinstance(value, dict):
        return {key: without_objects(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(without_objects(item) for item in value)
    if isinstance(value, Inert):
        return None
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 else value
