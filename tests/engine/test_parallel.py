"""One run in several processes: the result of one process, one set of files, one message when it fails."""
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.data.sharing import BATCHES, IMAGES, Share, SharedBatches
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.engine.hooks import parallel
from dassl.utils import UserError, distributed
from tools import train

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"DAPT": ["TRAINER.DAPT.VIS_DROPOUT", "0.3"], "DVPcls": []}
SGD = ["OPTIM.NAME", "sgd", "OPTIM.LR", "0.1"]              # Adam makes a step of a gradient's rounding
OPTIONS = {"VPT": ["TRAINER.VPT.DROPOUT", "0.5"],          # also try it, where a method has it
           "CLIPLoRA": SGD, "BitFit": SGD, "UPT": SGD,
           # A gradient of nearly 0 may have another sign in an attack, and a large step would show it.
           "TeCoA": ["OPTIM.LR", "0.01"], "APT": [*SGD, "OPTIM.LR", "0.001"], "FARE": [*SGD, "OPTIM.LR", "0.0001"]}


class Process:
    """Makes this process one of several, for what does not talk to the others."""

    def __init__(self, patch, rank: int, world: int):
        patch.setattr(distributed, "rank", lambda: rank)
        patch.setattr(distributed, "world_size", lambda: world)


@settings(deadline=None, max_examples=60)
@given(N=st.integers(1, 40), size=st.integers(1, 9), world=st.integers(1, 5), drop_last=st.booleans())
def test_shares_are_every_batch_once_and_differ_by_one_image(N, size, world, drop_last):
    whole = list(torch.utils.data.BatchSampler(range(N), size, drop_last))
    images, turns = [], []
    for rank in range(world):
        with pytest.MonkeyPatch.context() as patch:
            Process(patch, rank, world)
            mine = SharedBatches(range(N), size, drop_last, IMAGES)
            shares = [mine.share(i) for i in range(len(mine))]
            assert len(mine) == len(whole) and all(s.total == len(b) for s, b in zip(shares, whole, strict=True))
            assert all(len(batch) == max(s.size, 1) for s, batch in zip(shares, mine, strict=True))
            images.append([batch[:s.size] for s, batch in zip(shares, mine, strict=True)])
            turns.append(list(SharedBatches(range(N), size, drop_last, BATCHES)))
            assert len(SharedBatches(range(N), size, drop_last, BATCHES)) == len(turns[-1])
    for batch, *parts in zip(whole, *images, strict=True):
        assert sum(parts, []) == batch
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [turns[i % world][i // world] for i in range(len(whole))] == whole


@pytest.mark.parametrize("expanded", [True, False])
def test_draws_for_a_share_are_cut_out_of_the_draw_for_the_batch(expanded):
    whole = torch.randn(1, 3, 4).expand(7, -1, -1) if expanded else torch.randn(7, 3, 4)
    torch.manual_seed(3)
    expected = F.dropout(whole, 0.4), torch.randn_like(whole), torch.rand(2)
    for start, stop in ((0, 3), (3, 7)):
        torch.manual_seed(3)
        with parallel.draws_of_the_batch(Share(start, stop, 7)):
            found = F.dropout(whole[start:stop], 0.4), torch.randn_like(whole[start:stop]), torch.rand(2)
        torch.testing.assert_close(found[0], expected[0][start:stop])
        assert torch.equal(found[1], expected[1][start:stop]) and torch.equal(found[2], expected[2])


def _command(trainer: str, opts: list, folder: Path, *flags: str) -> list[str]:
    """Shots 1 of ten digits: a batch of nine, and for trainers that keep a short batch one of a single image."""
    return ["--trainer", trainer, "--seed", "1", "--output-dir", str(folder), *flags,
            "--dataset-config-file", "configs/datasets/digits.yaml",
            "--config-file", f"configs/trainers/{trainer}/tiny.yaml", "DATASET.NUM_SHOTS", "1", "OPTIM.MAX_EPOCH", "2",
            "TRAIN.CHECKPOINT_FREQ", "1", "DATALOADER.TRAIN_X.BATCH_SIZE", "9", "TEST.SPLIT", "val",
            "DATALOADER.TEST.BATCH_SIZE", "4", "TEST.COMPUTE_CMAT", "True", *opts]


def _torchrun(script: str, arguments: list[str], n: int = 2, **env) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n), script]
    return subprocess.run([*command, *arguments], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **env},
                          capture_output=True, text=True, timeout=120)


def _both(forked, tmp: Path, trainers: dict, extra=lambda tmp: []) -> None:
    """Every trainer in this process (tmp/one) and in two (tmp/two), which get the environment that torchrun sets."""
    for trainer, opts in trainers.items():
        train.main(train.parser().parse_args(_command(trainer, opts, tmp / "one" / trainer)))
    commands = [*(_command(trainer, opts, tmp / "two" / trainer) for trainer, opts in trainers.items()), *extra(tmp)]
    _two(forked, lambda: [train.main(train.parser().parse_args(command)) for command in commands])


def _two(forked, run) -> list:
    """What `run()` gives in each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def process(rank):
        os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        return run()

    return [result() for result in [forked(process, rank) for rank in ("0", "1")]]


def _half_of_a_run(tmp: Path) -> list[list[str]]:
    """DAPT's run of one process as it was after its first epoch, to continue in two."""
    shutil.copytree(tmp / "one" / "DAPT", tmp / "two" / "resumed")
    (tmp / "two" / "resumed" / "results.json").unlink()
    (tmp / "two" / "resumed" / "prompt_learner" / "model.pth.tar-2").unlink()
    (tmp / "two" / "resumed" / "prompt_learner" / "checkpoint").write_text("model.pth.tar-1\n")
    return [_command("DAPT", QUICK["DAPT"], tmp / "two" / "resumed", "--resume", str(tmp / "two" / "resumed"))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, forked):
    tmp = tmp_path_factory.mktemp("parallel")
    _both(forked, tmp, QUICK, _half_of_a_run)
    return tmp


def _learned(run: Path) -> dict:
    return {f"{path.parent.name}.{name}": value.double() for path in run.glob("*/model.pth.tar-2")
            for name, value in torch.load(path, weights_only=True)["state_dict"].items()}


def assert_same_run(one: Path, two: Path) -> None:
    first, second = (json.loads((run / "results.json").read_text()) for run in (one, two))
    assert (first["world_size"], second["world_size"]) == (1, 2)
    assert first["metrics"] == pytest.approx(second["metrics"], rel=1e-4) and first["num_test"] == second["num_test"]
    assert torch.equal(*(torch.load(run / "cmat.pt", weights_only=True) for run in (one, two)))
    assert [first[k] for k in ("config_hash", "split_hash")] == [second[k] for k in ("config_hash", "split_hash")]
    a, b = _learned(one), _learned(two)
    assert a.keys() == b.keys()
    for name in a:                      # gradients are added up in another order: a few units of float32
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=3e-5, msg=lambda m, name=name: f"{name}: {m}")
    images, again = ([line.rsplit(",", 2)[0] for line in (run / "predictions.csv").read_text().splitlines()]
                     for run in (one, two))
    assert images == again and len(images) > 1
    assert {path.name for path in one.rglob("*")} - {path.name for path in (one / "tensorboard").glob("*")} == \
        {path.name for path in two.rglob("*")} - {path.name for path in (two / "tensorboard").glob("*")}


@pytest.mark.parametrize("trainer", QUICK)
def test_two_processes_learn_and_write_what_one_does(runs, trainer):
    assert_same_run(runs / "one" / trainer, runs / "two" / trainer)


def test_two_processes_log_the_batches_of_one(runs):
    logs = [(runs / n / "DAPT" / "log.txt").read_text().splitlines() for n in ("one", "two")]
    lines = [[line.split(" loss ")[1].split(" lr ")[0] for line in log if " loss " in line] for log in logs]
    assert len(lines[0]) == len(lines[1]) == 2
    for one, two in zip(*lines, strict=True):
        values = [[float(word.strip("()")) for word in line.split() if word.strip("()")[0].isdigit()]
                  for line in (one, two)]
        assert values[0] == pytest.approx(values[1], abs=2e-3)


def test_a_run_of_one_process_goes_on_in_two(runs):
    two = runs / "two" / "resumed"
    assert json.loads((two / "results.json").read_text())["world_size"] == 2
    ended = [_learned(folder) for folder in (runs / "one" / "DAPT", two)]
    for name in ended[0]:
        torch.testing.assert_close(ended[0][name], ended[1][name], rtol=1e-4, atol=3e-5)


train.register()
OURS = {name for name in TRAINER_REGISTRY.registered_names() if TRAINER_REGISTRY.get(name).__name__ == name
        and TRAINER_REGISTRY.get(name).__module__.startswith("trainers.")}
SEVERAL = sorted(name for name in OURS - QUICK.keys() if not TRAINER_REGISTRY.get(name).one_process_only
                 and TRAINER_REGISTRY.get(name).adapts != "stream")


@pytest.mark.slow
@pytest.mark.parametrize("trainer", SEVERAL)
def test_every_trainer_learns_in_two_processes_what_it_learns_in_one(trainer, tmp_path, forked):
    assert QUICK.keys() <= OURS and len(SEVERAL) >= 8
    _both(forked, tmp_path, {trainer: OPTIONS.get(trainer, [])})
    assert_same_run(tmp_path / "one" / trainer, tmp_path / "two" / trainer)


def test_a_trainer_that_needs_all_images_at_once_refuses_several_processes(make_cfg, monkeypatch):
    trainer = build_trainer(make_cfg("LinearProbe"))
    parallel.check(trainer)
    Process(monkeypatch, 0, 2)
    with pytest.raises(UserError, match="LinearProbe trains in one process: its solver.*This run has 2"):
        parallel.check(trainer)


FAILING = '''
import os, signal, time
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import UserError, distributed
from trainers._base import PromptTrainer
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.text_prompt import TextPrompt

@TRAINER_REGISTRY.register()
class Failing(PromptTrainer):
    @classmethod
    def build(cls, clip, classes, options):
        return PromptedModel(clip, text=TextPrompt(clip, classes.names, n_ctx=2))

    def before_train(self):
        ends, second = os.environ["ENDS"], distributed.rank() == 1
        if ends == "killed" and second:
            os.kill(os.getpid(), signal.SIGKILL)
        if ends == "asked" and second:
            os.kill(os.getppid(), signal.SIGTERM)
        if ends != "told":
            time.sleep(60)
        super().before_train()

    def loss(self, out, batch):
        if distributed.rank() == 1:
            raise UserError("The second process cannot continue.")
        return super().loss(out, batch)
'''


GONE = "Another process of this run ended without a word"


def test_a_failure_of_one_process_ends_all_with_one_message(tmp_path, forked, monkeypatch):
    monkeypatch.setenv("ENDS", "told")
    monkeypatch.setattr(distributed, "_TIME_TO_SPEAK", 0.0)         # in which torchrun would end them
    (tmp_path / "failing.py").write_text(FAILING)
    command = _command("CoOp", [], tmp_path / "run", "--plugin", str(tmp_path / "failing.py"))
    command[1] = "Failing"

    def run():
        sys.stderr = sys.__stderr__ = io.StringIO()
        try:
            code = train.cli(command)
        except SystemExit as end:
            code = end.code
        return code, sys.__stderr__.getvalue()

    codes, said = zip(*_two(forked, run))
    assert 0 not in codes and "".join(said).count("The second process cannot continue.") == 1
    assert not (tmp_path / "run" / "results.json").exists()
    assert "The second process cannot continue." in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("ends, said, logged", [
    ("told", "The second process cannot continue.", "The second process cannot continue."),
    ("killed", GONE, GONE),                                         # the first one sees a SIGTERM only
    ("asked", "Ended by SIGTERM", "Terminated: 143")])
def test_a_failure_of_one_process_under_torchrun_ends_all_with_one_message(tmp_path, ends, said, logged):
    (tmp_path / "failing.py").write_text(FAILING)
    command = _command("CoOp", [], tmp_path / "run", "--plugin", str(tmp_path / "failing.py"))
    command[1] = "Failing"
    done = _torchrun("tools/train.py", command, ENDS=ends)
    assert done.returncode != 0 and done.stderr.count(said) == 1
    assert str(ROOT / "tools") not in done.stderr               # torchrun prints a traceback of its own, the run none
    assert not (tmp_path / "run" / "results.json").exists()
    assert logged in (tmp_path / "run" / "log.txt").read_text()
