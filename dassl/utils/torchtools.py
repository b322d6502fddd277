"""Checkpoints in Dassl's layout, written whole or not at all, and read without running anything that is in them."""
from __future__ import annotations

import collections
import io
import logging
import os.path as osp
import re
import warnings
import zipfile

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dassl.compat.passed_on import passed_on
from dassl.compat.restricted_pickle import restricted_pickle
from dassl.files.whole import write_whole

from .errors import MissingFile, UserError
from .layers import init_network_weights, set_bn_to_eval  # noqa: F401
from .portable import ENDING, read_portable
from .tools import count_num_param, mkdir_if_missing, tolist_if_not  # noqa: F401 - Dassl has the first one here

logger = logging.getLogger(__name__)
__getattr__ = passed_on(__name__)

BEST = "model-best.pth.tar"


def save_checkpoint(state: dict, save_dir: str, is_best: bool = False, remove_module_from_keys: bool = True,
                    model_name: str = "") -> None:
    """Write `state` to `<save_dir>/model.pth.tar-<epoch>` and its name to `<save_dir>/checkpoint`.

    Args:
        state: state_dict, epoch (finished ones), optimizer, scheduler, val_result: tensors and plain data only.
        is_best: write it as model-best.pth.tar too.
        remove_module_from_keys: strip DataParallel's "module." from the weights' names.
        model_name: another file name.
    """
    mkdir_if_missing(save_dir)
    if remove_module_from_keys:
        state["state_dict"] = _without_module(state["state_dict"])
    name = model_name or f"model.pth.tar-{state['epoch']}"
    write_checkpoint(state, osp.join(save_dir, name))
    logger.info("Checkpoint saved to %s", osp.join(save_dir, name))
    write_whole(osp.join(save_dir, "checkpoint"), f"{name}\n")
    if is_best:
        write_checkpoint(state, osp.join(save_dir, BEST))


def write_checkpoint(state: dict, path: str) -> None:
    """One file, whole or not at all."""
    file = io.BytesIO()                 # torch turns a full disk into an error of its own; a file of Python's says it
    torch.save(state, file)
    write_whole(path, file.getvalue())


def _without_module(state_dict: dict) -> dict:
    """Without what DataParallel and torch.compile put in front of names."""
    return collections.OrderedDict((re.sub(r"^((module|_orig_mod)\.)+", "", k), v) for k, v in state_dict.items())


def load_checkpoint(fpath: str, map_location: str | torch.device | None = "cpu") -> dict:
    """The content of a checkpoint file: ours, one that Dassl wrote with a scheduler object in it, or a .safetensors.

    Raises:
        UserError: no such file, a damaged one, or one that holds code.
    """
    if fpath is None:
        raise ValueError("File path is None")
    if not osp.exists(fpath):
        raise MissingFile(f'No checkpoint at "{fpath}".')
    if osp.splitext(fpath)[1] == ENDING:
        tensors, facts = read_portable(fpath)
        return {**{name: fact for name, fact in facts.items() if name not in ("tensors", "sha256")},
                "state_dict": collections.OrderedDict(tensors)}
    try:
        _check_archive(fpath)
        return _load(fpath, map_location)
    except Exception as error:  # torch raises a dozen types for a damaged file; all mean the same to the user
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise UserError(f"The checkpoint {fpath} cannot be read: {reason}. Only tensors and plain data are loaded. "
                        "If the file was cut, take an earlier one or train again.") from error


def _load(fpath: str, map_location: str | torch.device | None) -> dict:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        try:
            return torch.load(fpath, map_location=map_location, weights_only=True)
        except Exception:  # an old checkpoint, or a damaged one: the next reader tells them apart
            pass
        arguments = dict(map_location=map_location, pickle_module=restricted_pickle, weights_only=False)
        try:
            return torch.load(fpath, **arguments)
        except UnicodeDecodeError:                      # bytes of Python 2
            return torch.load(fpath, encoding="latin1", **arguments)


def _check_archive(fpath: str) -> None:
    """Refuse a TorchScript program, which torch.load would hand to torch.jit and so run, and changed bytes, which it
    would take for weights: the archive has checksums.
    """
    if not zipfile.is_zipfile(fpath):
        return                                          # the format before PyTorch 1.6 has none
    with zipfile.ZipFile(fpath) as archive:
        if any(name.rsplit("/", 1)[-1] == "constants.pkl" for name in archive.namelist()):
            raise ValueError("it is a TorchScript program, not a checkpoint")
        if broken := archive.testzip():
            raise ValueError(f"{broken} in it does not have its checksum, so bytes of it were changed or lost")


def resume_from_checkpoint(fdir: str, model: nn.Module, optimizer=None, scheduler=None) -> int:
    """Restore a model, and its optimiser and schedule exactly where they were.

    Args:
        fdir: folder that holds `checkpoint`, the name of the latest file.
    Returns:
        Epochs that were finished.
    """
    with open(osp.join(fdir, "checkpoint"), encoding="utf-8") as file:
        fpath = osp.join(fdir, file.readline().strip())
    checkpoint = load_checkpoint(fpath)
    restore(checkpoint, checkpoint["epoch"], fpath, model, optimizer, scheduler)
    logger.info("Loaded %s (epoch %s)", fpath, checkpoint["epoch"])
    return checkpoint["epoch"]


def restore(saved: dict, epoch: int, source: str, model: nn.Module, optimizer=None, scheduler=None) -> None:
    """Put all three where a checkpoint was after `epoch` epochs. Raises UserError, which names the file `source`."""
    load_weights(model, saved["state_dict"], source)
    if optimizer is not None and isinstance(saved.get("optimizer"), dict):
        _load_optimizer(optimizer, saved["optimizer"], source)
    if scheduler is not None:
        _load_schedule(scheduler, saved.get("scheduler"), epoch)


def load_weights(model: nn.Module, state_dict: dict, source: str) -> None:
    """`load_state_dict`, whose refusal names the file.

    Raises:
        UserError: names, types or shapes that do not fit the model, or parameters that are NaN or infinite.
    """
    given, own = _without_module(state_dict), model.state_dict()
    if whole := next((name for name, value in given.items() if name in own and own[name].is_floating_point()
                      and torch.is_tensor(value) and not value.is_floating_point()), ""):
        raise UserError(f"{whole} in the checkpoint {source} is {str(given[whole].dtype).removeprefix('torch.')}, not "
                        "floating point. Save the weights before they are quantised.")
    try:
        model.load_state_dict(given)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(f"The checkpoint {source} does not fit this model: {reason}. Was it trained with the same "
                        "trainer and settings (context words, depth, class-specific context, backbone)?") from error
    _check_finite(model, source)


def _check_finite(model: nn.Module, source: str) -> None:
    """After loading. A buffer such as an attention mask may hold infinities, but no NaN."""
    if bad := next((name for name, value in model.named_parameters() if not value.isfinite().all()), "") or \
            next((name for name, value in model.named_buffers() if value.isnan().any()), ""):
        raise UserError(f"{bad} in the checkpoint {source} has numbers that are NaN or infinite, so nothing can be "
                        "computed with it. Take an earlier checkpoint, or train again with a smaller OPTIM.LR.")


def _load_schedule(schedule, saved, epoch: int) -> None:
    """For Dassl's own files, which hold an object, the epochs of the schedule are repeated."""
    if isinstance(saved, dict) and isinstance(saved.get("successor", {}), dict):
        schedule.load_state_dict(saved)
        return
    for group, lr in zip(schedule.optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = lr                        # the optimiser was loaded at the rate of the saved epoch
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step\\(\\)`")    # its steps were taken before
        for _ in range(epoch):
            schedule.step()


def _load_optimizer(optimizer: Optimizer, state: dict, source: str) -> None:
    saved, own = ([len(group["params"]) for group in groups] for groups in (state["param_groups"],
                                                                            optimizer.param_groups))
    if saved != own:
        raise UserError(f"The optimiser in {source} has groups of {saved} parameters, but this trainer's of {own}, "
                        "so the training cannot be resumed from it. To load its weights alone, pass the run folder as "
                        f"--model-dir (with --eval-only) to test them, or set MODEL.INIT_WEIGHTS {source} to start a "
                        "new training from them.")
    optimizer.load_state_dict(state)


def load_initial_weights(model: nn.Module, path: str) -> None:
    """Start `model` from MODEL.INIT_WEIGHTS. Raises UserError if nothing in the file fits."""
    if not load_pretrained_weights(model, path):
        raise UserError(f"MODEL.INIT_WEIGHTS names a checkpoint to start from, and nothing in {path} fits what this "
                        "trainer learns, by name and shape. Name a checkpoint of the same trainer and settings, or "
                        "leave it out.")


def load_pretrained_weights(model: nn.Module, weight_path: str) -> bool:
    """Copy whatever fits by name and shape into `model`; says what did not, and returns whether anything did."""
    checkpoint = load_checkpoint(weight_path)
    given = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else {}
    given = _without_module(given) if isinstance(given, dict) else {}
    own = model.state_dict()
    fits = {k: v for k, v in given.items() if k in own and isinstance(v, Tensor) and own[k].shape == v.shape
            and own[k].is_complex() == v.is_complex()}
    if not fits:
        logger.warning("Nothing in %s fits the model (check the key names by hand)", weight_path)
        return False
    own.update(fits)
    model.load_state_dict(own)
    _check_finite(model, weight_path)
    left = sorted(set(given) - set(fits))
    logger.info("Loaded %d weights from %s%s", len(fits), weight_path,
                f"; left aside: {', '.join(left)}" if left else "")
    return True


def open_all_layers(model: nn.Module) -> None:
    """Every parameter learns; the model is in training mode."""
    model.train()
    model.requires_grad_(True)


def open_specified_layers(model: nn.Module, open_layers: str | list[str]) -> None:
    """Only the named children learn and are in training mode."""
    names = tolist_if_not(open_layers)
    children = dict(model.named_children())
    if unknown := [n for n in names if n not in children]:
        raise ValueError(f"{', '.join(unknown)} not among the model's layers: {', '.join(children)}.")
    for name, module in children.items():
        module.train(name in names)
        module.requires_grad_(name in names)
