"""Train and test one method on one dataset: the flags of CoOp's train.py, with plugins and readable errors.

For programs: `parser()`, `setup_cfg(args)` -> frozen config for `dassl.engine.build_trainer`, `main(args)`.
"""
from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import re
import shutil
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:               # trainers, datasets and tools are folders of the checkout, never installed
    sys.path.insert(0, str(ROOT))

from tools import inputs  # noqa: E402
from tools.running import console, faults, restart  # noqa: E402
from tools.sweeping import leash  # noqa: E402

SWEEP = "DASSL_SWEEP"                       # set in the runs of a sweep, which has its own words for an interruption;
ANEW = "anew"                               # with this value they first remove what a former run left in the folder
PROGRESS = "DASSL_PROGRESS_SECONDS"         # between lines of progress where stderr is no terminal
USER_ERROR, IN_USE = 2, 75                  # exit codes: yours to mend; another process writes in the run folder

logger = logging.getLogger("tools.train")

EXAMPLES = """
examples:
  DAPT on real handwritten digits, 16 shots, with the embedded model; nothing is downloaded:
    python tools/train.py --trainer DAPT --seed 1 --output-dir output/try \\
        --dataset-config-file configs/datasets/digits.yaml --config-file configs/trainers/DAPT/tiny.yaml \\
        DATASET.NUM_SHOTS 16

  The same on Oxford-IIIT Pet with ViT-B/16, at another learning rate (KEY VALUE pairs come last):
    python tools/train.py --root data --trainer DAPT --seed 1 --output-dir output/pets \\
        --dataset-config-file configs/datasets/oxford_pets.yaml --config-file configs/trainers/DAPT/vit_b16.yaml \\
        DATASET.NUM_SHOTS 16 OPTIM.LR 0.002

  Test what was trained, on another dataset:
    python tools/train.py --trainer CoOp --eval-only --model-dir output/imagenet --load-epoch 50 \\
        --dataset-config-file configs/datasets/imagenetv2.yaml --config-file configs/trainers/CoOp/vit_b16.yaml

  Images of your own, in folders of classes or in a CSV (path, label, classname); no Python, no yaml:
    python tools/train.py --dataset-dir my_images --template "a photo of a {}." --trainer CoOp --seed 1 \\
        --config-file configs/trainers/CoOp/tiny.yaml DATASET.NUM_SHOTS 16

  One big run on four GPUs of this machine, the same result and files as on one (docs/scaling.md):
    torchrun --nproc_per_node 4 tools/train.py --trainer CoOp --seed 1 --output-dir output/imagenet \\
        --dataset-config-file configs/datasets/imagenet.yaml --config-file configs/trainers/CoOp/vit_b16.yaml

  A trainer of your own, from a file; and all that is there:
    python tools/train.py --plugin mine.py --trainer Mine ...
    python tools/train.py --list

  A trainer of somebody else's repository (CoOp's kind), with the config keys of its train.py, on a machine without GPU:
    python tools/train.py --plugin theirs/trainers/maple.py --extend-cfg theirs/train.py --allow-cpu-shim \
        --trainer MaPLe --config-file theirs/configs/trainers/MaPLe/vit_b16_c2_ep5_batch4_2ctx.yaml ...

A published table, cell by cell, with means over seeds: scripts/*.sh and tools/sweep.py.
"""


def parser() -> argparse.ArgumentParser:
    """The flags; KEY VALUE pairs for the config follow them and end up in `args.opts`."""
    p = argparse.ArgumentParser(prog="tools/train.py", description=__doc__.splitlines()[0], epilog=EXAMPLES,
                                formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("--root", default="", help="folder of the datasets (default: $DATA, else ./data)")
    p.add_argument("--output-dir", default="", help="run folder: log.txt, checkpoints, results.json")
    p.add_argument("--resume", default="", metavar="DIR",
                   help="continue from what is saved in this run folder; not needed to go on with an interrupted run: "
                        "the same command does")
    p.add_argument("--anew", action="store_true", help="start anew where an interrupted run would go on")
    p.add_argument("--on-nan", default=None, choices=("stop", "skip", "fp32"),
                   help="at a step whose loss or gradient is infinite or NaN: stop and say where (default), leave it "
                        "out and count it, or repeat it in float32")
    p.add_argument("--deterministic", action="store_true",
                   help="on a GPU too, the same seed gives the same bits; slower (a CPU always does)")
    p.add_argument("--seed", type=int, default=None,
                   help="0 is a seed too; without the flag, or with -1, the run is unseeded (as in Dassl)")
    p.add_argument("--source-domains", nargs="+", default=None, help="for domain adaptation and generalisation sets")
    p.add_argument("--target-domains", nargs="+", default=None, help="for domain adaptation and generalisation sets")
    p.add_argument("--transforms", nargs="+", default=None, help="training transforms, e.g. random_flip normalize")
    p.add_argument("--config-file", default="", help="trainer yaml, e.g. configs/trainers/CoOp/vit_b16.yaml")
    p.add_argument("--dataset-config-file", default="", help="dataset yaml, e.g. configs/datasets/dtd.yaml")
    p.add_argument("--dataset-dir", default="", metavar="PATH",
                   help="images of your own: a folder with one folder per class (or train/, val/, test/ of them), or a "
                        "CSV or JSON of path, label, classname and perhaps split; missing splits are drawn")
    p.add_argument("--template", default="", help='sentence for their class names, e.g. "a photo of a {}, a fruit."')
    p.add_argument("--classnames", default="", metavar="FILE",
                   help='their class names: one per line, in order of the folders, or "folder: name" lines, or JSON')
    p.add_argument("--trainer", default="", help="registered name, see --list")
    p.add_argument("--backbone", default="", help="e.g. ViT-B/16, RN50, tiny, or a file of weights")
    p.add_argument("--head", default="", help="head of the network, for trainers that use one")
    p.add_argument("--eval-only", action="store_true", help="test only, with the prompts of --model-dir")
    p.add_argument("--model-dir", default="", help="run folder to load from, for --eval-only")
    p.add_argument("--load-epoch", type=int, default=None, help="which of its checkpoints (default: best, else last)")
    p.add_argument("--no-train", action="store_true", help="build everything and stop")
    p.add_argument("--plugin", action="append", default=[], metavar="FILE_OR_MODULE",
                   help="a .py file or a module that registers trainers or datasets; repeatable")
    p.add_argument("--replace", action="store_true",
                   help="let --plugin files take over names that are taken, e.g. the authors' own CoOp")
    p.add_argument("--extend-cfg", default="", metavar="FILE",
                   help="the train.py of somebody else's repository: its extend_cfg(cfg) adds its config keys, and "
                        "nothing else of the file is run")
    p.add_argument("--allow-cpu-shim", action="store_true",
                   help="where there is no CUDA, run .cuda() and device \"cuda\" of other people's code on the CPU")
    p.add_argument("--list", action="store_true", help="print the registered trainers and datasets, and stop")
    p.add_argument("--print-config", action="store_true", help="print the merged config as yaml, and stop")
    p.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config options, e.g. OPTIM.LR 0.01")
    return p


def setup_cfg(args: argparse.Namespace):
    """The frozen config: defaults < extend_cfg of plugins, --extend-cfg < dataset yaml < trainer yaml < flags < opts.

    Trainers and datasets are registered when it returns, so `dassl.engine.build_trainer(cfg)` works at once.

    Raises:
        UserError: an unknown key, file, plugin or type of value, named with the nearest known one.
    """
    modules = register(args.plugin, args.replace)
    from dassl.config import UnknownKey, get_cfg_default, merge_file, merge_opts
    from dassl.engine import TRAINER_REGISTRY
    from dassl.engine.plugins import extend_all
    from dassl.utils import UserError

    cfg = get_cfg_default()
    extend_all(cfg, modules)
    if args.extend_cfg:
        from dassl.config.extend import extend
        from tools.running.foreign import load_extend_cfg

        extend(cfg, load_extend_cfg(args.extend_cfg), args.extend_cfg)
    own = "configs/datasets/image_dir.yaml" if args.dataset_dir else ""
    if flags := [word for word in args.opts if word.startswith("--")]:
        raise UserError(f"Flags come before the KEY VALUE options; move {flags[0]} in front of {args.opts[0]}.")
    try:
        for path in (args.dataset_config_file or own, args.config_file):
            if path:
                merge_file(cfg, inputs.existing(path))
        _merge_flags(cfg, args)
        merge_opts(cfg, args.opts)
    except UnknownKey as error:
        raise type(error)(f"{error}{_where_keys_come_from(args)}") from error
    cfg.TRAINER.NAME = TRAINER_REGISTRY.canonical(cfg.TRAINER.NAME)      # a run is recorded under one name
    cfg.freeze()
    return cfg


def _where_keys_come_from(args: argparse.Namespace) -> str:
    given = [*args.plugin, *([args.extend_cfg] if args.extend_cfg else [])]
    return (" A key of somebody else's trainer comes from the extend_cfg(cfg) of --plugin path/to/trainer.py or of "
            f"--extend-cfg path/to/train.py{'; given: ' + ', '.join(given) if given else ''}.")


def register(plugins: list[str] = (), replace: bool = False) -> list:
    """Import all trainers and datasets: the checkout's, installed packages' and `plugins`; returns the modules.

    Args:
        replace: `plugins` may take over names that are registered by others.
    """
    _own_packages_first()
    from dassl.engine.plugins import discover, load_entry_points, load_plugin

    return [*discover("datasets"), *discover("trainers"), *load_entry_points(),
            *(load_plugin(plugin, replace) for plugin in plugins)]


def main(args: argparse.Namespace) -> None:
    """Train and test, or test only. Raises what goes wrong; the command line turns it into words (`cli`)."""
    _own_packages_first()
    from dassl.utils import distributed, stop
    from dassl.utils.deterministic import bit_for_bit

    with stop.on_signals(), bit_for_bit(args.deterministic), distributed.processes(), contextlib.ExitStack() as stack:
        _run(args, stack)


def _run(args: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    from tools.running.foreign import code_of_others

    with code_of_others(args.allow_cpu_shim):
        cfg = setup_cfg(args)
    if args.print_config:
        print(cfg.dump())
        return
    import torch

    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY, build_trainer, parallel
    from dassl.utils import UserError, collect_env_info, cpu_shim, distributed, set_random_seed, setup_logger
    from dassl.utils.logger import CONSOLE
    from dassl.utils.run_lock import RunLock
    from dassl.utils.whole_files import write_whole
    from tools.running.first_look import first_look
    from tools.sweeping.slots import threads_of

    if threads := threads_of(cfg.MODEL.BACKBONE.NAME):
        torch.set_num_threads(threads)
    TRAINER_REGISTRY.get(cfg.TRAINER.NAME)          # a wrong name is told before a folder is made
    DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.DATASET.NAME == "ImageDir" and not args.output_dir:
        cfg = _in_folder_of_its_own(cfg, args)
    cfg = stack.enter_context(parallel.own_folder(cfg))
    folder, first_new = Path(cfg.OUTPUT_DIR), _first_new(Path(cfg.OUTPUT_DIR))
    try:
        with RunLock(folder) as lock, setup_logger(_ready(cfg.OUTPUT_DIR)) as log, code_of_others(args.allow_cpu_shim):
            try:
                if lock.taken_over_from:
                    logger.warning("%s was left by %s, which is gone; this run takes it over", folder,
                                   lock.taken_over_from)
                resume = distributed.from_first(restart.begin(folder, args, cfg.RESUME))
                config = cfg.dump()
                write_whole(folder / "config.yaml", config)
                cfg = _with(cfg, RESUME=resume)
                logger.info("%s on %s, %s. Log: %s", cfg.TRAINER.NAME, cfg.DATASET.NAME,
                            "unseeded" if cfg.SEED < 0 else f"seed {cfg.SEED}", log.path, extra=CONSOLE)
                if cpu_shim.is_on():
                    logger.warning("This machine has no CUDA: calls for it run on the CPU (--allow-cpu-shim)")
                logger.info("%s\n%s", cfg, collect_env_info())
                if cfg.SEED >= 0:
                    set_random_seed(cfg.SEED)
                else:
                    distributed.same_streams()
                trainer = build_trainer(cfg)
                if args.eval_only:
                    trainer.load_model(args.model_dir, epoch=args.load_epoch)
                if cfg.DATASET.NAME == "ImageDir" and not args.no_train:
                    first_look(trainer)
                if args.eval_only:
                    trainer.test()
                elif not args.no_train:
                    trainer.train()
                restart.complete(folder, args, config)
            except BaseException as error:
                logger.info("Stopped: %s", "".join(traceback.format_exception(error)))     # its last lines say why
                raise
    except UserError:
        _remove_if_nothing_ran(first_new)
        raise


def cli(argv: list[str] | None = None) -> int:
    """The command line.

    Returns:
        0, 1 (a fault: traceback, or a loss that is not finite), 2 (yours to mend), 75 (in a sweep: another process
        writes in the run folder; try again later), 130 (Ctrl-C), 143 or 129 (SIGTERM, SIGHUP: the state is saved).
    """
    leash.hold()
    if "RANK" in os.environ:                    # started by torchrun
        _own_packages_first()
        from dassl.utils import distributed

        distributed.quiet()
    args = parser().parse_args(argv)
    with console.patient():
        return _told(args)


def _told(args: argparse.Namespace) -> int:
    """The run or the list; what ends it otherwise in words and as an exit code."""
    try:
        return _list(args) if args.list else main(args) or 0
    except KeyboardInterrupt:
        return _interrupted("Interrupted", 130, args)
    except SystemExit as end:
        if not hasattr(end, "name"):
            raise
        return _interrupted(f"Ended by {end.name}", end.code, args)
    except Exception as error:
        from dassl.utils import UserError
        from dassl.utils.run_lock import FolderInUse

        story = _whole_story(error, args) if isinstance(error, UserError) else \
            faults.story(error, args.output_dir or "output") if isinstance(error, OSError) else ""
        if not story:
            raise
        print(f"\n{story}", file=sys.stderr)
        if isinstance(error, FolderInUse) and SWEEP in os.environ:
            return IN_USE
        return 1 if isinstance(error, FloatingPointError) else USER_ERROR


def _merge_flags(cfg, args: argparse.Namespace) -> None:
    """Flags into the config; one that was not given changes nothing."""
    if args.dataset_dir:
        cfg.DATASET.NAME = "ImageDir"
    cfg.DATASET.ROOT = args.root or cfg.DATASET.ROOT or os.environ.get("DATA") or "./data"
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


def _in_folder_of_its_own(cfg, args: argparse.Namespace):
    """Runs on one's own images go to output/<their folder>/<trainer>/<config>[_<k>shots]/seed<s>, as a sweep's do."""
    shots = f"_{cfg.DATASET.NUM_SHOTS}shots" if cfg.DATASET.NUM_SHOTS >= 1 else ""
    variant = f"{Path(args.config_file).stem or 'default'}{shots}"
    folder = Path("output", inputs.name_of(cfg.DATASET.DIR), cfg.TRAINER.NAME, variant, f"seed{cfg.SEED}")
    return _with(cfg, OUTPUT_DIR=str(folder))


def _with(cfg, **values):
    """A frozen config of the same values but these."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.update(values)
    cfg.freeze()
    return cfg


def _own_packages_first() -> None:
    """Import our dassl, clip, trainers and datasets, whatever else is installed under these everyday names."""
    if sys.path[0] != str(ROOT):
        sys.path.insert(0, str(ROOT))
    for name in ("dassl", "clip", "trainers", "datasets"):
        found = [Path(folder).resolve() for folder in importlib.import_module(name).__path__]
        if ROOT / name not in found:
            raise ImportError(f"{name} was imported from {found[0]} and not from {ROOT}. Import tools.train before "
                              f"that package, or take {found[0].parent} off PYTHONPATH.")


def _list(args: argparse.Namespace) -> int:
    """Print name, module and paper of everything registered."""
    _own_packages_first()
    from tools.running.foreign import code_of_others

    with code_of_others(args.allow_cpu_shim):
        register(args.plugin, args.replace)
    from tabulate import tabulate

    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY
    from dassl.engine.plugins import place

    for title, registry in (("trainer", TRAINER_REGISTRY), ("dataset", DATASET_REGISTRY)):
        rows = [(name, place(cls), _paper(cls)) for name in sorted(registry.registered_names())
                for cls in [registry.get(name)]]
        print(tabulate(rows, headers=[title, "module", "paper"]), end="\n\n")
        if later := [name for name in registry.later if name not in registry]:
            print(f"Dassl's, loaded when they are named: {', '.join(sorted(later))}\n")
    return 0


def _paper(cls: type) -> str:
    """The work that the class's, or else its module's, docstring names under Source; a dataset's home page."""
    if card := getattr(cls, "card", None):
        return card.home
    for text in (cls.__doc__, sys.modules[cls.__module__].__doc__):
        if found := re.search(r"Source:\s*(.+?\)|[^.;]+)", text or "", re.DOTALL):
            return " ".join(found.group(1).split())
    return ""


def _whole_story(error: Exception, args: argparse.Namespace) -> str:
    """The error's paragraph; where the dataset is missing it also says whether OpenAI's weights are."""
    from clip.backbones import Backbone, resolve
    from clip.errors import InputError
    from clip.weights import cache_folders, find
    from datasets.benchmarks import DatasetNotFound

    if not isinstance(error, DatasetNotFound):
        return str(error)
    try:
        backbone = resolve(setup_cfg(args).MODEL.BACKBONE.NAME)
    except InputError:                              # a trainer of somebody else's, with a backbone of its own
        return str(error)
    if not isinstance(backbone, Backbone) or find(backbone):
        return str(error)
    return (f"{error} The weights of {backbone.name} are not on this machine either: there is no {backbone.file} in "
            f"{' or '.join(map(str, cache_folders()))}. The first run fetches it from {backbone.url}; "
            "without network place it there by hand.")


def _interrupted(how: str, code: int, args: argparse.Namespace) -> int:
    """Say how a run ended and what to do, except to a sweep, which has words of its own; returns the code."""
    folder = args.output_dir
    if SWEEP not in os.environ:
        on = f" The same command goes on from what {folder} holds." if folder and restart.has_state(Path(folder)) else \
            f" Log: {folder}/log.txt" if folder and Path(folder, "log.txt").exists() else ""
        print(f"{how}.{on}", file=sys.stderr)
    return code


def _ready(folder: str) -> str:
    """The run folder, without what a former run left there if a sweep says so; a folder that is not a run's stays."""
    path = Path(folder)
    if os.environ.get(SWEEP) == ANEW and ((path / inputs.FILE).exists() or any(path.glob("log.txt*"))):
        for entry in path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif not entry.name.startswith("run.lock"):
                entry.unlink()
    return folder


def _first_new(folder: Path) -> Path | None:
    """The topmost part of the path that does not exist yet."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    return missing[-1] if missing else None


def _remove_if_nothing_ran(first_new: Path | None) -> None:
    """Take back the folders of a run that ended before it had a result or a checkpoint, if it made them."""
    if first_new is None or not first_new.exists():
        return
    files = {path.name for path in first_new.rglob("*") if path.is_file()}
    if files <= {"log.txt", "config.yaml", inputs.FILE}:
        shutil.rmtree(first_new)


if __name__ == "__main__":
    sys.exit(cli())
