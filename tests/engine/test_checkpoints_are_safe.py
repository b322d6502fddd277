"""Nothing in a checkpoint is ever executed."""
import copyreg
import os
import pickle
import zipfile

import pytest
import torch

from dassl.compat.restricted_pickle import Inert
from dassl.utils import UserError, load_checkpoint


class _Bomb:
    """Its unpickling would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["scheduler", "epoch", "state_dict"])
@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}, None], ids=["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, where, form):
    state = {"state_dict": {"w": torch.zeros(1)}, "epoch": 3, "scheduler": None, where: _Bomb(tmp_path / "boom")}
    if form is None:
        (tmp_path / "evil").write_bytes(pickle.dumps(_Bomb(tmp_path / "boom"), protocol=2))
    else:
        torch.save(state, tmp_path / "evil", **form)
    with pytest.raises(UserError, match="evil cannot be read: .*system"):
        load_checkpoint(str(tmp_path / "evil"))
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize(
    "module, name",
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch.serialization", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("os", "system"),
        ("torch.hub", "load"),
        ("torch.optim.lr_scheduler", "sys.exit"),
        ("dassl.utils.tools", "os.system"),
        ("numpy", "load"),
        ("subprocess", "Popen"),
        ("torch._utils", "sys.exit"),
    ],
)
def test_no_path_leads_from_a_checkpoint_to_a_function(tmp_path, module, name):
    """Names behind a dot or in an allowed module must not resolve to anything callable of their own."""
    body = b"\x80\x04c" + f"{module}\n{name}\n".encode() + b"\x8c\x04boom\x85R."
    (tmp_path / "evil").write_bytes(body)
    torch.save({"x": 1}, tmp_path / "zip")
    with zipfile.ZipFile(tmp_path / "zip") as source, zipfile.ZipFile(tmp_path / "evil.zip", "w") as target:
        for item in source.namelist():
            target.writestr(item, body if item.endswith("data.pkl") else source.read(item))
    for file in ("evil", "evil.zip"):
        try:
            loaded = load_checkpoint(str(tmp_path / file))
        except UserError:
            continue
        assert type(loaded).__name__ == "Inert"


def test_inert_stand_ins_run_no_hook_of_the_class_they_replace():
    assert copyreg.__newobj__(Inert).__setstate__({"lambda": 1}) is None
