"""The same seed on the same machine gives the same bits, however the images are brought and whatever else runs."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import kill_anywhere  # noqa: E402

from dassl.engine import build_trainer  # noqa: E402
from dassl.utils import UserError  # noqa: E402
from dassl.utils.deterministic import bit_for_bit  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def result(cfg):
    """Prompts, optimisers and metrics of a training."""
    trainer = build_trainer(cfg)
    trainer.train()
    folder = Path(cfg.OUTPUT_DIR)
    found = kill_anywhere.outcome(folder)
    found["results.json"].pop("config_hash")
    return found


@pytest.mark.parametrize("name", ["DAPT", "DVPcls"])
def test_workers_and_image_cache_change_nothing(name, make_cfg, tmp_path):
    def run(workers, megabytes, folder):
        return result(make_cfg(name, "DATALOADER.NUM_WORKERS", workers, "DATALOADER.CACHE_MB", megabytes,
                               output=tmp_path / folder))

    first = run(0, 0, "a")
    for number, (workers, megabytes) in enumerate([(0, 64), (2, 0), (2, 64)]):
        assert kill_anywhere.differences(first, run(workers, megabytes, str(number))) == [], (workers, megabytes)


@pytest.mark.slow
def test_alone_or_beside_other_runs_is_the_same(tmp_path):
    """The embedded model runs on one thread unless OMP_NUM_THREADS says otherwise, so load cannot change its sums."""
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}

    def start(name):
        return subprocess.Popen([sys.executable, "tools/train.py", *kill_anywhere.command("CoOp", tmp_path / name)],
                                cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(*processes):
        assert [process.wait(120) for process in processes] == [0] * len(processes)

    wait(start("alone"))
    wait(*map(start, "ab"))
    alone, *others = (kill_anywhere.outcome(tmp_path / name) for name in ("alone", *"ab"))
    assert all(kill_anywhere.differences(alone, other) == [] for other in others)


def test_deterministic_asks_torch_for_it_and_gives_it_back():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with bit_for_bit():
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before
    with bit_for_bit(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_form_is_told():
    with pytest.raises(UserError, match="--deterministic: .*put_.*without the flag"), bit_for_bit():
        raise RuntimeError("put_ does not have a deterministic implementation, but you set ...")


@pytest.mark.gpu
@pytest.mark.parametrize("name", kill_anywhere.TRAINERS)
def test_on_a_gpu_deterministic_runs_are_the_same_to_the_bit(name, tmp_path):
    from tools import train

    for folder in "ab":
        assert train.cli(["--deterministic", *kill_anywhere.command(name, tmp_path / folder)]) == 0
    assert kill_anywhere.differences(*(kill_anywhere.outcome(tmp_path / folder) for folder in "ab")) == []
