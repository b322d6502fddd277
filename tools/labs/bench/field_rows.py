"""The steps that the field's side takes, by the name of their row. Imports nothing heavy."""
from __future__ import annotations

from importlib import import_module

STEPS = {"CoOp": "field_steps.CoOpStep", "VPT": "field_steps.VPTStep", "DAPT": "field_steps.DAPTStep",
         "CoCoOp": "field_steps.CoCoOpStep", "VP": "field_pixels.VPStep", "AR": "field_pixels.ARStep",
         "AttrVR": "field_pixels.AttrVRStep", "DVPcse": "field_pixels.DVPStep", "CoOp-test": "field_steps.CoOpTest",
         "ZeroshotCLIP": "field_steps.ZeroshotTest"}
OF_224_PIXELS = {"VP": {"TRAINER.VP.WIDTH": 30}}        # published sizes, which go with the image's side


def step_class(name: str) -> type:
    """A step of the field: called with a trainer of ours, a batch and a piece, see `field_steps.CoOpStep`."""
    module, step = STEPS[name].split(".")
    return getattr(import_module(f"tools.labs.bench.{module}"), step)
