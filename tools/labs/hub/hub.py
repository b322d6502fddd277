"""Runs to and from the Hugging Face hub, through its client, or a folder."""
from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from dassl.errors import UserError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SECRET = re.compile(r"(hf|api)_\w+|(?i:bearer)\s+\S+")


def push(run, target: str, *, public: bool = False, licence: str = "") -> str:
    """Share a run; returns where it went: an address on the hub, or a folder.

    Args:
        run: a `tools.runs.run.Run`.
        target: user/repository, or a new folder.
        public: on the hub, whether everybody may see it. licence: identifier for the card.
    """
    from tools.labs.hub.folder import pack

    if not is_repository(target):
        folder = Path(target).expanduser()
        return str(pack(run, folder, f"./{folder.resolve().name}", licence))
    hub = _hub()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pack(run, Path(temporary, "shared"), target, licence)
        api = hub.HfApi()
        address = _as_user_error(lambda: api.create_repo(target, private=not public, exist_ok=True))
        _as_user_error(lambda: api.upload_folder(repo_id=target, folder_path=folder,
                                        commit_message=f"{run.trainer} on {run.dataset_name}"))
    return str(address)


def pull(source: str, folder: Path, revision: str | None = None) -> Path:
    """Make a run folder of what was shared; returns it."""
    from tools.labs.hub.folder import FILES, unpack

    if not is_repository(source):
        return unpack(Path(source).expanduser(), folder)
    hub = _hub()
    shared = _as_user_error(lambda: hub.snapshot_download(source, revision=revision, allow_patterns=list(FILES)))
    return unpack(Path(shared), folder)


def is_repository(word: str) -> bool:
    """Whether a name is one of the hub's, rather than a folder's."""
    return bool(_REPOSITORY.fullmatch(word)) and not Path(word).exists() and not Path(word).parent.is_dir()


def _hub():
    """The hub's client."""
    if os.environ.get("DASSL_OFFLINE") == "1":
        raise UserError("DASSL_OFFLINE=1 forbids the hub. Share with a folder: ./name, or unset it.")
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError("Sharing with the hub needs huggingface_hub: pip install huggingface_hub, or pip install -e "
                        "\".[share]\" in the checkout. A folder as target (./name) needs nothing.") from error
    return huggingface_hub


def _as_user_error(call):
    """What the hub's client gives; what it raises becomes a paragraph without secrets."""
    try:
        return call()
    except Exception as error:  # the client raises many types; each means that the hub did not do it
        reason = _SECRET.sub("***", " ".join(str(error).split()))[:400]
        raise UserError(f"The hub did not do it ({type(error).__name__}: {reason}). Check the name, `hf auth login` "
                        "and the network; a folder as target (./name) needs none of them.") from None
