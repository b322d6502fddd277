"""From the flags to the frozen config, with every trainer and dataset registered."""
from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from dassl.errors import UserError
from tools import command
from tools.checkout import default_folder, register
from tools.runs import inputs
from tools.runs.cell import OWN, ROOT
from tools.runs.folder import RunFolder

TOWER_KEYS = ("SIZE", "PIXEL_MEAN", "PIXEL_STD", "INTERPOLATION")      # of INPUT; facts of the tower unless set


def setup_cfg(args: argparse.Namespace):
    """The frozen config: defaults < extend_cfg of plugins, --extend-cfg < dataset yaml < trainer yaml < flags < opts.

    What the setup_cfg of --extend-cfg does to the merged config, such as settings per dataset, comes right before opts.
    Trainers and datasets are registered when it returns, so `dassl.engine.build_trainer(cfg)` works at once.

    Raises:
        UserError: an unknown key, file, plugin or type of value, named with the nearest known one.
    """
    modules = register(args.plugin, args.replace)
    from dassl.config import UnknownKey, get_cfg_default, merge_file, merge_opts
    from dassl.config.merge import leaves
    from dassl.engine import TRAINER_REGISTRY
    from dassl.engine.plugins import extend_all

    cfg = get_cfg_default()
    usual = {key: cfg.INPUT[key] for key in TOWER_KEYS}
    cfg.INPUT.update(dict.fromkeys(usual))                  # to know afterwards which ones somebody has set
    extend_all(cfg, modules)
    if args.extend_cfg:
        from dassl.compat.extend import extend
        from dassl.compat.extend_cfg import load_extend_cfg
        from dassl.compat.registered_there import register_unknown
        from dassl.data.datasets import DATASET_REGISTRY
        from dassl.evaluation import EVALUATOR_REGISTRY

        theirs = load_extend_cfg(args.extend_cfg, vars(args))
        _merge_flags(cfg, args)                 # so that they are no news where that file sets the same
        extend(cfg, theirs, args.extend_cfg)
    declare(cfg, args.new_key)
    default = {} if args.plugin or args.extend_cfg else dict(leaves(cfg))   # theirs may mean something by None
    own = "configs/datasets/image_dir.yaml" if args.dataset_dir else ""
    if hint := next(filter(None, map(command.pair_hint, args.opts[::2])), ""):
        raise UserError(hint)
    if flags := [word for word in args.opts if word.startswith("--")]:
        raise UserError(f"Flags come before the KEY VALUE options; move {flags[0]} in front of {args.opts[0]}.")
    try:
        for path in (args.dataset_config_file or own, args.config_file):
            if path:
                merge_file(cfg, inputs.existing(path))
        _merge_flags(cfg, args)
        merge_opts(cfg, args.opts)
        if args.extend_cfg:
            theirs.after_merging(cfg)
            _merge_flags(cfg, args)
            merge_opts(cfg, args.opts)
            register_unknown(args.extend_cfg, [(DATASET_REGISTRY, cfg.DATASET.NAME),
                                               (EVALUATOR_REGISTRY, cfg.TEST.EVALUATOR)])
        _fill_image_facts(cfg, usual, args.config_file)
    except UnknownKey as error:
        raise type(error)(f"{error}{_where_keys_come_from(args)}") from error
    if empty := [key for key, value in leaves(cfg) if value is None and default.get(key) is not None]:
        raise UserError(f"{empty[0]} has no value (None). Leave it out for its default, {default[empty[0]]!r}.")
    _refuse_undecodable(leaves(cfg))
    if args.plugin:
        from tools.running.foreign import name_their_dataset

        name_their_dataset(cfg.DATASET.NAME, modules)
    cfg.TRAINER.NAME = TRAINER_REGISTRY.canonical(cfg.TRAINER.NAME)      # a run is recorded under one name
    cfg.freeze()
    return cfg


def _refuse_undecodable(pairs: Iterable[tuple[str, object]]) -> None:
    """Raises UserError for a name, such as of a folder, whose bytes this locale cannot read: no file could hold it."""
    for key, value in pairs:
        for text in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(text, str) and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise UserError(f"{key} is {text!a}, which is no {sys.getfilesystemencoding()}, so that the run could "
                                "not write it down. Rename it; or, if its name is UTF-8, set PYTHONUTF8=1.")


def declare(cfg, pairs: list[list[str]]) -> None:
    """Add keys that no extend_cfg makes, of --new-key KEY VALUE; the value tells the type.

    Raises:
        UserError: a key exists, or lies below one that is not a section.
    """
    from dassl.config import CfgNode

    for key, text in pairs:
        *sections, name = key.split(".")
        node = cfg
        for section in sections:
            node = node.setdefault(section, CfgNode()) if isinstance(node, CfgNode) else None
        if not isinstance(node, CfgNode) or name in node or not all(part.isidentifier() for part in (*sections, name)):
            raise UserError(f"--new-key declares a key that is not there yet, such as TRAINER.MINE.SCALE; {key} is one "
                            "already or cannot be one. The values of known keys are options: KEY VALUE at the end.")
        node[name] = CfgNode._decode_cfg_value(text)


def _fill_image_facts(cfg, usual: dict, config_file: str) -> None:
    """INPUT's size and statistics: as set, else the tower's for a config or a trainer of this project, else Dassl's."""
    from clip import InputError
    from clip.weights import facts_of_images
    from dassl.config import merge_opts
    from dassl.engine import TRAINER_REGISTRY
    from trainers._base import PromptTrainer

    given = {key: cfg.INPUT[key] for key in usual if cfg.INPUT[key] is not None}
    facts, name = {}, cfg.MODEL.BACKBONE.NAME
    ours = config_file and (ROOT / "configs") in inputs.existing(config_file).resolve().parents
    trainer = cfg.TRAINER.NAME
    ours = ours or trainer in TRAINER_REGISTRY and issubclass(TRAINER_REGISTRY.get(trainer), PromptTrainer)
    if ours and len(given) < len(usual):
        with contextlib.suppress(InputError):               # raised again where the towers are loaded
            known = facts_of_images(name)
            facts = {"SIZE": (known.size, known.size), "PIXEL_MEAN": list(known.mean), "PIXEL_STD": list(known.std),
                     "INTERPOLATION": known.interpolation}
    cfg.INPUT.update(usual | facts)
    merge_opts(cfg, [part for key, value in given.items() for part in (f"INPUT.{key}", value)])


def _where_keys_come_from(args: argparse.Namespace) -> str:
    given = [*args.plugin, *([args.extend_cfg] if args.extend_cfg else [])]
    return (" A key of somebody else's trainer comes from the extend_cfg(cfg) of --plugin path/to/trainer.py or of "
            f"--extend-cfg path/to/train.py{'; given: ' + ', '.join(given) if given else ''}. --new-key KEY VALUE "
            "declares one that their code reads and sets nowhere.")


def _merge_flags(cfg, args: argparse.Namespace) -> None:
    """Flags into the config; one that was not given changes nothing."""
    from tools.running.tested import is_own_folder

    if args.dataset_dir:
        cfg.DATASET.NAME = OWN
        cfg.DATASET.TEST_ONLY = args.eval_only and not is_own_folder(args.model_dir, args.dataset_dir)
    cfg.DATASET.ROOT = args.root or cfg.DATASET.ROOT or default_folder("data")
    given = {"OUTPUT_DIR": args.output_dir, "RESUME": args.resume, "SEED": args.seed}
    for node, values in (
            (cfg, given),
            (cfg.DATASET, {"SOURCE_DOMAINS": args.source_domains, "TARGET_DOMAINS": args.target_domains}),
            (cfg.DATASET, {"DIR": args.dataset_dir, "TEMPLATE": args.template, "CLASSNAMES": args.classnames}),
            (cfg.INPUT, {"TRANSFORMS": args.transforms}), (cfg.TRAIN, {"ON_NAN": args.on_nan}),
            (cfg.TRAINER, {"NAME": args.trainer}),
            (cfg.MODEL.BACKBONE, {"NAME": args.backbone}), (cfg.MODEL.HEAD, {"NAME": args.head})):
        for key, value in values.items():
            if value is not None and value != "":
                node[key] = tuple(value) if isinstance(value, list) else value


def in_own_folder(cfg, args: argparse.Namespace):
    """Runs on one's own images go below output/ where a sweep's do: see `tools.runs.cell.Cell.folder`.

    Raises:
        UserError: the folder holds the result of a run that was given other images or flags.
    """
    from dassl.config import with_values
    from tools.running.tested import meant

    cell = meant(cfg, args)
    folder = Path("output", replace(cell, config=cell.config or "default").folder)
    changes = inputs.differences(inputs.read(folder) or {}, inputs.describe(args))
    if RunFolder(folder).record and changes and not args.anew:
        raise UserError(f"{folder} holds the result of another run ({'; '.join(changes)}). Name another folder with "
                        "--output-dir, or replace that result with --anew.")
    return with_values(cfg, {"OUTPUT_DIR": str(folder)})


def as_yaml(cfg) -> str:
    """`cfg.dump()`, with libyaml where it is installed, which takes a fifth of the time."""
    return yaml.dump(_plain(cfg), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))


def _plain(node):
    return {key: _plain(value) for key, value in node.items()} if isinstance(node, dict) else node


@contextlib.contextmanager
def in_folder_of_this_process(cfg) -> Iterator:
    """The config; in all processes but the first with a temporary output folder, because only one writes."""
    from dassl.config import with_values
    from dassl.utils import distributed

    if distributed.rank() == 0:
        yield cfg
        return
    with tempfile.TemporaryDirectory(prefix=f"dassl-process-{distributed.rank()}-") as folder:
        yield with_values(cfg, {"OUTPUT_DIR": folder})
