"""Resuming: the newest state in a run folder is found and brought back once, weights, optimisers, schedules and all.

It is in resume.pth.tar (`dassl.engine.hooks.autosave`), or in the checkpoints of all models, in Dassl's layout.
"""
from __future__ import annotations

import logging
import os.path as osp
from dataclasses import dataclass

from dassl.utils.errors import UserError
from dassl.utils.torchtools import load_checkpoint, restore

from .checkpoint_files import POINTER, read_weights

FILE = "resume.pth.tar"

logger = logging.getLogger(__name__)


@dataclass
class State:
    """A training after `epoch` epochs and `batch` batches of the next.

    Attributes:
        models: {name: {"state_dict", "optimizer", "scheduler"}}; paths: {name: file that it was read from}.
        training: of `trainer.training_state()`; None in a checkpoint of Dassl's.
        epoch_start: random streams at the start of an epoch that is not finished.
    """

    epoch: int
    batch: int
    models: dict[str, dict]
    training: dict | None = None
    epoch_start: dict | None = None
    paths: dict[str, str] | None = None


def resume(trainer, directory: str) -> State | None:
    """Bring back the newest state of a run folder, exactly; None where it has none, and nothing is changed.

    Raises:
        UserError: it is another trainer's, or does not fit this one.
    """
    found = [state for state in (_of_checkpoints(trainer, directory), _of_autosave(directory)) if state]
    if not found:
        if trainer.get_model_names():
            logger.info("No checkpoint found in %s, training from scratch", directory)
        return None
    state, learners = max(found, key=lambda state: (state.epoch, state.batch)), trainer.registered()  # first of equals
    if set(state.models) != {learner.name for learner in learners}:
        raise UserError(f"{osp.join(directory, FILE)} holds {', '.join(state.models)}, but {type(trainer).__name__} "
                        f"learns {', '.join(learner.name for learner in learners)}: it is another trainer's. Resume "
                        "from a run of this one, or train from scratch in another --output-dir.")
    for learner in learners:
        restore(state.models[learner.name], state.epoch, state.paths[learner.name], *learner[1:])
    if state.training is not None:
        trainer.load_training_state(state.training)
    logger.info("Resumed from %s after epoch %d and %d batches", directory, state.epoch, state.batch)
    return state


def _of_checkpoints(trainer, directory: str) -> State | None:
    """The latest epoch that all models have a checkpoint of."""
    names = trainer.get_model_names()
    pointers = {name: osp.join(directory, name, POINTER) for name in names}
    if not names or not all(map(osp.exists, pointers.values())):
        return None
    paths = {}
    for name, pointer in pointers.items():
        with open(pointer, encoding="utf-8") as file:
            paths[name] = osp.join(directory, name, file.readline().strip())
    states = {name: read_weights(path) for name, path in paths.items()}
    if len(epochs := {state["epoch"] for state in states.values()}) > 1:
        # The run was stopped between the files of two models: the earlier epoch is the last that all of them have.
        paths = {name: osp.join(directory, name, f"model.pth.tar-{min(epochs)}") for name in names}
        if not all(map(osp.exists, paths.values())):
            logger.info("The checkpoints in %s are of different epochs", directory)
            return None
        states = {name: read_weights(path) for name, path in paths.items()}
    last = states[names[-1]]
    return State(last["epoch"], 0, states, last.get("training"), None, paths)


def _of_autosave(directory: str) -> State | None:
    path = osp.join(directory, FILE)
    if not osp.exists(path):
        return None
    try:
        content = load_checkpoint(path)
        return State(**{**content, "paths": dict.fromkeys(content["models"], path)})
    except (UserError, KeyError, TypeError) as error:
        logger.warning("%s cannot be used (%s). The run resumes from its last checkpoint.", path, error)
        return None
