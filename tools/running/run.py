"""One run from its config to its end: the folder and its lock, the restart, training or testing."""
from __future__ import annotations

import argparse
import contextlib
import inspect
import logging
import os
import traceback
from pathlib import Path

from dassl.errors import UserError
from tools.running import endings, restart
from tools.running.configuration import as_yaml, in_folder_of_this_process, in_own_folder, setup_cfg
from tools.runs import inputs
from tools.runs.cell import OWN, Cell
from tools.runs.folder import RunFolder
from tools.runs.record import OF_TRAINING

VALIDATE = "DASSL_VALIDATE"                 # set by a search of settings for its runs

logger = logging.getLogger("tools.train")


def run(args: argparse.Namespace, stack: contextlib.ExitStack) -> None:
    from tools.running.foreign import code_of_others

    with code_of_others(args.allow_cpu_shim):
        cfg = setup_cfg(args)
    if args.print_config:
        print(as_yaml(cfg))
        return
    import torch

    from dassl.compat import cpu_shim
    from dassl.config import with_values
    from dassl.data.datasets import DATASET_REGISTRY
    from dassl.engine import TRAINER_REGISTRY
    from dassl.utils import collect_env_info, distributed, setup_logger
    from dassl.utils.logger import CONSOLE
    from dassl.utils.run_lock import RunLock
    from tools.running import tested
    from tools.sweeping.slots import threads_of

    if threads := threads_of(cfg.MODEL.BACKBONE.NAME):
        torch.set_num_threads(threads)
    if not cfg.TRAINER.NAME:
        raise UserError("No trainer was named.\n  --trainer NAME chooses one; --list shows them.")
    if not cfg.DATASET.NAME:
        raise UserError("No dataset was named.\n"
                        "  --dataset-config-file configs/datasets/NAME.yaml chooses one; --list shows them.\n"
                        "  --dataset-dir PATH takes your own images.")
    TRAINER_REGISTRY.get(cfg.TRAINER.NAME)          # a wrong name is refused before a folder is made
    DATASET_REGISTRY.get(cfg.DATASET.NAME)
    if cfg.DATASET.NAME == OWN and not args.output_dir:
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
                run = restart.Beginning(folder, args, meant, as_yaml(cfg), cfg.RESUME)
                cfg = with_values(cfg, {"RESUME": distributed.from_first(run.resume)})
                logger.info("%s on %s, %s. Log: %s", cfg.TRAINER.NAME, meant.dataset,
                            "unseeded" if cfg.SEED < 0 else f"seed {cfg.SEED}", log.path, extra=CONSOLE)
                if cpu_shim.is_on():
                    logger.warning("This machine has no CUDA: calls for it run on the CPU (--allow-cpu-shim)")
                logger.info("%s\n%s", cfg, collect_env_info())
                with distributed.ended_together():
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
    from dassl.engine import SimpleTrainer, build_trainer
    from dassl.engine.hooks import Hook
    from dassl.utils import distributed, set_random_seed
    from tools.running import tested
    from tools.running.first_look import first_look
    from tools.running.tested import refuse_other_classes

    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    else:
        distributed.same_streams()
    trainer = build_trainer(cfg)

    class Watch(Hook):
        has_result = False

        def before_writing(self, trainer) -> None:
            run.replace()

        def tested(self, trainer, split: str, results: dict) -> None:
            self.has_result = not trainer.is_training

        def untested(self, trainer) -> None:
            self.has_result = True

    watch = Watch()
    trainer.engine_hooks.append(watch)
    if VALIDATE in os.environ:
        from tools.running.validating import Validating

        trainer.engine_hooks.append(Validating())
    trainer.recorded["cell"] = meant.as_dict()
    if cfg.DATASET.NAME == OWN:
        trainer.recorded["dataset"] = meant.dataset
    if inputs.tests_itself(args):               # the training stays what it was
        former = RunFolder(cfg.OUTPUT_DIR).record
        trainer.recorded |= {name: former[name] for name in OF_TRAINING if name in former}
    if args.eval_only:
        refuse_other_classes(trainer, args.model_dir)
        wanted = inspect.signature(trainer.load_model).parameters       # some public trainers take the config too
        trainer.load_model(args.model_dir, epoch=args.load_epoch, **({"cfg": cfg} if "cfg" in wanted else {}))
    elif cfg.RESUME:
        refuse_other_classes(trainer, cfg.RESUME, resumes=True)
    if cfg.DATASET.NAME == OWN and not args.no_train:
        first_look(trainer)
    if args.no_train:
        return
    found = tested.last_results(trainer)
    if args.eval_only:
        trainer.test()
    else:
        before = tested.file_state(cfg.OUTPUT_DIR)
        trainer.train()
        trainer.end_training()                  # where a train() and an after_train() of its own did not
        watch.has_result |= tested.file_state(cfg.OUTPUT_DIR) != before         # where it wrote them by itself
    if not watch.has_result:
        if not args.eval_only and cfg.TEST.NO_TEST:
            trainer.call_hooks("untested")
        elif getattr(type(trainer), "test", None) is SimpleTrainer.test:
            logger.info("Its own train() has not tested the trained model; it is tested now")
            trainer.test()
        elif found:
            logger.info("%s has a test() of its own: results.json has its numbers, and there is no predictions.csv",
                        cfg.TRAINER.NAME)
            trainer.call_hooks("tested_itself", found)
    run.replace()                               # for a trainer that never calls its hooks
