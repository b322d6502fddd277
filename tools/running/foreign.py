"""Somebody else's code in a run: where it finds files and weights, and what its errors become."""
from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from clip import clip
from clip.errors import InputError
from dassl.compat import repository
from dassl.compat.cpu_shim import cuda_of_others
from dassl.compat.their_files import files_of_repositories
from dassl.errors import UserError
from tools.runs.cell import ROOT

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def code_of_others(cuda_on_cpu: bool) -> Iterator[None]:
    """Around whatever may run a plugin: CLIP's errors, and calls for CUDA without a GPU, become user errors.

    Its files are found in its repository, and the few-shot lists of ours under the names of CoOp's pickles.

    Args:
        cuda_on_cpu: run these on the CPU, see `cuda_of_others`.
    """
    from datasets.kept_lists import coop_pickle

    try:
        with cuda_of_others(cuda_on_cpu), files_of_repositories(coop_pickle):
            yield
    except InputError as error:
        raise UserError(str(error)) from error


def share_weights(module: ModuleType) -> None:
    """A repository's copy of OpenAI's clip.py finds weights as ours does: also "tiny", files, what CLIP_CACHE holds."""
    models, download = vars(module).get("_MODELS"), vars(module).get("_download")
    if isinstance(models, dict) and callable(download):
        published = {url.rpartition("/clip/models/")[2]: url for url in clip._MODELS.values()}

        def find(url: str, *args, **kwargs) -> str:
            known = published.get(url.rpartition("/clip/models/")[2], url)
            is_ours = known in published.values() or Path(known).expanduser().is_file()
            return clip._download(known) if is_ours else download(url, *args, **kwargs)

        module._MODELS, module._download = type(clip._MODELS)({**clip._MODELS, **models}), find


def name_their_dataset(name: str, modules: Iterable[ModuleType]) -> None:
    """Warn where a plugin's repository has a dataset of that name and this run takes another: theirs may differ.

    PromptKD's trains on all classes and tests on the new ones, numbered from 0, and its trainer relies on that.
    """
    from dassl.data.datasets import DATASET_REGISTRY

    used = repository.root_of(DATASET_REGISTRY.get(name).__module__) if name in DATASET_REGISTRY else None
    for root in {repository.root_of(module.__name__) for module in modules} - {None, used, ROOT}:
        for file in sorted((root / "datasets").glob("*.py")):
            if re.search(rf"^class {re.escape(name)}\(", file.read_text(errors="replace"), re.MULTILINE):
                logger.warning("%s of this run is not that of %s, which its authors used: --plugin %s --replace takes "
                               "theirs", name, file, file)


repository.after_import.append(share_weights)
