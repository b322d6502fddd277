"""The model card of a shared run: what it is, how good it was, how to use it; numbers are the run's own."""
from __future__ import annotations

import yaml

_SHOWN = 200                            # class names on a card


def card(title: str, classes: dict, results: dict, settings: dict, licence: str = "") -> str:
    """README.md as the hub reads it: facts in YAML, then Markdown.

    Args:
        title: where it will be found: user/repository, or ./folder.
        classes, results, settings: as classes.json, results.json and config.yaml hold them; results may be {}.
        licence: its identifier on the hub, or "".
    """
    name = title.removeprefix("./")
    trainer, dataset, backbone = classes["trainer"], classes["dataset"], classes["backbone"]
    metrics, split = results.get("metrics", {}), results.get("split", "test")
    head = {"library_name": "dassl-prompts", "pipeline_tag": "image-classification",
            "tags": ["clip", "prompt-learning", "few-shot", trainer.lower()]}
    if licence:
        head["license"] = licence
    if metrics:
        head["model-index"] = [{"name": name, "results": [{
            "task": {"type": "image-classification"}, "dataset": {"name": dataset, "type": dataset.lower(),
                                                                  "split": split},
            "metrics": [{"type": name, "value": round(value, 2)} for name, value in metrics.items()]}]}]
    shots, seed = settings["DATASET"].get("NUM_SHOTS", -1), settings.get("SEED")
    rows = [("method", trainer), ("dataset", dataset),
            ("training images", f"{shots} per class" if shots >= 1 else "all"), ("seed", seed),
            ("classes", len(classes["classnames"])),
            ("backbone", f"CLIP {backbone.get('name', '')}, sha256 {backbone.get('sha256', 'unknown')}"),
            *((name, f"{value:.2f} {'nats' if name == 'nll' else '%'} "
                     f"({split} split, {results.get('num_test', '?')} images)")
              for name, value in metrics.items()),
            *((f"{name} at training", value) for name, value in results.get("versions", {}).items())]
    table = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)
    names = classes["classnames"]
    more = f"\n\nand {len(names) - _SHOWN} more in `classes.json`." if len(names) > _SHOWN else ""
    return f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---

# {_cell(name)}

Prompts for a frozen CLIP, learned by {_cell(trainer)} on {_cell(dataset)}. The files hold what was learned and no
weights of CLIP: those are needed too, and their sha256 is checked.

| | |
|---|---|
{table}

## Use

From a checkout of dassl-prompts:

```bash
python tools/share.py pull {_cell(title)} my_run
python tools/predict.py --run my_run photos/
```

`prompt_learner.safetensors` holds the tensors, under the names that the method's authors gave them; `classes.json` the
class names, the sentence and the image transform; `config.yaml` every setting; `results.json` the result with versions.

## Classes

{", ".join(map(_cell, names[:_SHOWN]))}{more}
"""


def _cell(value) -> str:
    """Text that is no markup, in one line."""
    text = " ".join(str(value).split())
    for sign in "\\`*[]|<>":
        text = text.replace(sign, f"&#{ord(sign)};")
    return text
