"""Train and test one method on one dataset: the flags of CoOp's train.py, with plugins and readable errors.

For programs: `parser()`, `setup_cfg(args)` -> frozen config for `dassl.engine.build_trainer`, `main(args)`.
"""
from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:               # trainers, datasets and tools are folders of the checkout, never installed
    sys.path.insert(0, str(ROOT))

from tools.running import console, endings, faults, restart  # noqa: E402
from tools.running.arguments import parser  # noqa: E402
from tools.running.configuration import (  # noqa: E402
    in_folder_of_this_process,
    in_own_folder,
    setup_cfg,
    with_values,
)
from tools.running.endings import IN_USE, PROGRESS, USER_ERROR  # noqa: E402
from tools.running.restart import ANEW, SWEEP  # noqa: E402
from tools.runs.cell import Cell  # noqa: E402
from tools.runs.checkout import own_packages_first, register  # noqa: E402
from tools.sweeping import leash  # noqa: E402

__all__ = ["ANEW", "IN_USE", "PROGRESS", "ROOT", "SWEEP", "USER_ERROR", "cli", "main", "parser", "register",
           "setup_cfg"]

logger = logging.getLogger("tools.train")


def main(args: argparse.Namespace) -> None:
    """Train and test, or test only. Raises what goes wrong; the command line turns it into words (`cli`)."""
    own_packages_first()
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

    from dassl.compat import cpu_shim
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY
    from dassl.utils import UserError, collect_env_info, distributed, setup_logger
    from dassl.utils.logger import CONSOLE
    from dassl.utils.run_lock import RunLock
    from tools.running import tested
    from tools.sweeping.slots import threads_of

    if threads := threads_of(cfg.MODEL.BACKBONE.NAME):
        torch.set_num_threads(threads)
    TRAINER_REGISTRY.get(cfg.TRAINER.NAME)          # a wrong name is told before a folder is made
    DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.DATASET.NAME == "ImageDir" and not args.output_dir:
        cfg = in_own_folder(cfg, args)
    cfg = stack.enter_context(in_folder_of_this_process(cfg))
    folder, first_new = Path(cfg.OUTPUT_DIR), endings.first_new(Path(cfg.OUTPUT_DIR))
    try:
        with RunLock(folder) as lock, setup_logger(cfg.OUTPUT_DIR) as log, \
                code_of_others(args.allow_cpu_shim):
            try:
                if lock.taken_over_from:
                    logger.warning("%s was left by %s, which is gone; this run takes it over", folder,
                                   lock.taken_over_from)
                if args.eval_only:
                    cfg = tested.with_learned_classes(cfg, args.model_dir)
                meant = tested.meant(cfg, args)
                run = restart.Beginning(folder, args, meant, cfg.dump(), cfg.RESUME)
                cfg = with_values(cfg, RESUME=distributed.from_first(run.resume))
                logger.info("%s on %s, %s. Log: %s", cfg.TRAINER.NAME, cfg.DATASET.NAME,
                            "unseeded" if cfg.SEED < 0 else f"seed {cfg.SEED}", log.path, extra=CONSOLE)
                if cpu_shim.is_on():
                    logger.warning("This machine has no CUDA: calls for it run on the CPU (--allow-cpu-shim)")
                logger.info("%s\n%s", cfg, collect_env_info())
                with distributed.told_apart():
                    _train_or_test(cfg, args, run, meant)
                run.complete()
            except BaseException as error:
                logger.info("Stopped: %s", "".join(traceback.format_exception(error)))     # its last lines say why
                raise
    except UserError as error:
        if isinstance(error, distributed.OtherProcessEnded):       # nothing that its user wrote wrongly
            raise
        endings.remove_if_nothing_ran(folder, first_new)
        raise


def _train_or_test(cfg, args: argparse.Namespace, run: restart.Beginning, meant: Cell) -> None:
    from dassl.engine import build_trainer
    from dassl.engine.hooks import Hook
    from dassl.utils import distributed, set_random_seed
    from tools.running.first_look import first_look
    from tools.running.tested import refuse_other_classes

    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    else:
        distributed.same_streams()
    trainer = build_trainer(cfg)

    class ReplaceFormerRun(Hook):
        def before_writing(self, trainer) -> None:
            run.replace()

    trainer.hooks.append(ReplaceFormerRun())
    trainer.recorded["cell"] = meant.as_dict()
    if args.eval_only:
        refuse_other_classes(trainer, args.model_dir)
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
    if cfg.DATASET.NAME == "ImageDir" and not args.no_train:
        first_look(trainer)
    if args.no_train:
        return
    if args.eval_only:
        trainer.test()
    else:
        trainer.train()
    run.replace()                               # for a trainer that never calls its hooks


def cli(argv: list[str] | None = None) -> int:
    """The command line.

    Returns:
        0, 1 (a fault: traceback, or a loss that is not finite), 2 (yours to mend), 75 (in a sweep: another process
        writes in the run folder; try again later), 130 (Ctrl-C), 143 or 129 (SIGTERM, SIGHUP: the state is saved).
    """
    leash.hold()
    if "RANK" in os.environ:                    # started by torchrun
        own_packages_first()
        from dassl.utils import distributed

        distributed.quiet()
    args = parser().parse_args(argv)
    with console.patient():
        return _told(args)


def _told(args: argparse.Namespace) -> int:
    """The run or the list; what ends it otherwise in words and as an exit code."""
    try:
        if args.list:
            from tools.running import catalogue

            catalogue.show(args)
        else:
            main(args)
        return 0
    except KeyboardInterrupt:
        return endings.interrupted("Interrupted", 130, args)
    except SystemExit as end:
        if not hasattr(end, "name"):
            raise
        return endings.interrupted(f"Ended by {end.name}", end.code, args)
    except Exception as error:
        from dassl.utils import UserError
        from dassl.utils.run_lock import FolderInUse

        story = endings.whole_story(error, args) if isinstance(error, UserError) else \
            faults.story(error, args.output_dir or "output") if isinstance(error, OSError) else ""
        if not story:
            raise
        print(f"\n{story}", file=sys.stderr)
        if isinstance(error, FolderInUse) and SWEEP in os.environ:
            return IN_USE
        return 1 if isinstance(error, FloatingPointError) else USER_ERROR


if __name__ == "__main__":
    sys.exit(cli())
