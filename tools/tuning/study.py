"""A study on disk or in a database: what was tried with which recipe, and how good it was on validation images."""
from __future__ import annotations

import os
import socket
import warnings
import zlib
from pathlib import Path

from tools.runs.cell import RecipeError
from tools.tuning.space import Range

FILE = "study.log"
_OF = "of"                                  # what a study is of, among its attributes
_MACHINE, _PROCESS, _LOST = "machine", "process", "interrupted"


def need_optuna() -> None:
    """Raises RecipeError where the library is missing."""
    try:
        import optuna
    except ImportError as error:
        raise RecipeError("Searching settings needs the package optuna: pip install 'optuna>=4.0', or install this "
                          "project with its extra `tune`.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_study(name: str, folder: Path, storage: str | None, of: dict[str, str], seed: int):
    """The study of that name, made where there is none.

    Args:
        storage: of Optuna, such as postgresql://...; None keeps a journal in `folder`, which machines may share.
        of: what it is a study of, and must be.
    Raises:
        RecipeError: it is a study of something else, or the storage cannot be used.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        if storage is None:
            folder.mkdir(parents=True, exist_ok=True)
        place = storage or JournalStorage(JournalFileBackend(str(folder / FILE)))
        try:
            study = optuna.load_study(study_name=name, storage=place)
        except KeyError:
            study = optuna.create_study(study_name=name, storage=place, direction="maximize", load_if_exists=True)
    except (OSError, ValueError, ImportError, optuna.exceptions.OptunaError) as error:
        raise RecipeError(f"The study {name} cannot be kept in {storage or folder}: {error}.") from error
    except Exception as error:              # of the library below Optuna's database
        if not type(error).__module__.startswith("sqlalchemy"):
            raise
        raise RecipeError(f"The study {name} cannot be kept in {storage}: {str(error).splitlines()[0]}") from error
    if other := {key: (found, of[key]) for key, found in study.user_attrs.get(_OF, of).items()
                 if key in of and found != of[key]}:
        words = "; ".join(f"its {key} is {found}, not {asked}" for key, (found, asked) in other.items())
        raise RecipeError(f"The study {name} in {storage or folder} is of something else: {words}. It is left as it "
                          "is; name another with --study.")
    if _OF not in study.user_attrs:
        study.set_user_attr(_OF, of)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    here = zlib.crc32(f"{socket.gethostname()} {os.getpid()}".encode()) if study.trials else 0
    study.sampler = optuna.samplers.TPESampler(seed=(seed + len(study.trials) + here) % 2 ** 31, multivariate=False,
                                               constant_liar=True)
    _take_back_lost(study)
    return study


def ask(study, ranges: list[Range]):
    """A new trial, that knows which process runs it."""
    trial = study.ask({each.key: each.distribution() for each in ranges})
    trial.set_user_attr(_MACHINE, socket.gethostname())
    trial.set_user_attr(_PROCESS, os.getpid())
    return trial


def take_back(study, number: int, again: bool = True) -> None:
    """A trial that did not end: its settings are tried again, and their run resumes, unless they are another's."""
    from optuna.trial import TrialState

    trial = study.trials[number]
    study._storage.set_trial_user_attr(trial._trial_id, _LOST, True)
    study.tell(number, state=TrialState.FAIL)
    if again:
        study.enqueue_trial(trial.params)


def counted(study) -> list:
    """The trials that count towards --trials: all that have ended or run, but those that were taken back."""
    from optuna.trial import TrialState

    return [trial for trial in study.trials if trial.state != TrialState.WAITING and _LOST not in trial.user_attrs]


def _take_back_lost(study) -> None:
    """Trials whose process on this machine is gone."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        here = trial.user_attrs.get(_MACHINE) == socket.gethostname()
        if here and not _alive(trial.user_attrs.get(_PROCESS)):
            take_back(study, trial.number)


def _alive(process: int | None) -> bool:
    try:
        os.kill(process or 0, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process is not None and process != os.getpid()
