"""The steps that the field's side takes, by the name of their row. Imports nothing heavy."""
from __future__ import annotations

from importlib import import_module

STEPS = {"CoOp": "field_steps.CoOpStep", "VPT": "field_steps.VPTStep", "DAPT": "field_steps.DAPTStep",
         "CoCoOp": "field_steps.CoCoOpStep", "TCP": "field_teacher.TCPStep",
         "PLOT": "field_prompts.PLOTStep", "ProDA": "field_prompts.ProDAStep",
         "MaPLe": "field_deep.MaPLeStep", "PromptSRC": "field_deep.PromptSRCStep", "MMRL": "field_deep.MMRLStep",
         "VP": "field_pixels.VPStep", "AR": "field_pixels.ARStep",
         "AttrVR": "field_pixels.AttrVRStep", "DVPcse": "field_pixels.DVPStep", "CoOp-test": "field_steps.CoOpTest",
         "ZeroshotCLIP": "field_steps.ZeroshotTest", "TPT": "field_adapting.TPTTest", "TDA": "field_adapting.TDATest"}
VIEWS = {"TPT": 64}                                     # of each image, as published
OF_224_PIXELS = {"VP": {"TRAINER.VP.WIDTH": 30}}        # published sizes, which go with the image's side
OF_TINY = {             # depths in place of the published ones, where a tower has two blocks
    "MaPLe": {"TRAINER.MAPLE.PROMPT_DEPTH": 2},
    "PromptSRC": {"TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT": 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION": 2},
    "MMRL": {"TRAINER.MMRL.REP_LAYERS": (1, 2)}, "TCP": {"TRAINER.TCP.BLOCK": 1}}


def step_class(name: str) -> type:
    """A step of the field: called with a trainer of ours, a batch and a piece, see `field_steps.CoOpStep`."""
    module, step = STEPS[name].split(".")
    return getattr(import_module(f"tools.labs.bench.{module}"), step)
