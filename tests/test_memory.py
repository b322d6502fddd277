"""Text in pieces: the same training, and what happens when memory runs out."""
import pytest
import torch

from dassl.engine import build_trainer
from dassl.utils import UserError


def learned(trainer):
    return {name: value.clone() for name, value in trainer.model.prompt_learner.state_dict().items()}


@pytest.mark.parametrize("options", [("CoOp",), ("CoOp", "TRAINER.COOP.CSC", True), ("DAPT",), ("CoCoOp",)])
def test_training_with_text_in_pieces_learns_the_same(make_cfg, tmp_path, options):
    results = []
    for limit in (0, 20):
        trainer = build_trainer(make_cfg(*options, "TRAIN.MAX_TOKENS", limit, "OPTIM.NAME", "sgd", "OPTIM.LR", 0.01,
                                         output=tmp_path / str(limit)))
        trainer.train()
        results.append(learned(trainer))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=0, atol=1e-5 * float(value.abs().max()), msg=name)


@pytest.fixture
def short_of_memory(make_cfg, monkeypatch):
    """short_of_memory(times, error) -> a CoOp trainer whose first `times` passes through the text tower run out."""
    def make(times, error, *opts):
        trainer = build_trainer(make_cfg("CoOp", *opts))
        encode, left = trainer.model.clip.encode_text, [times]

        def run_out(*args, **kwargs):
            if left[0]:
                left[0] -= 1
                raise error
            return encode(*args, **kwargs)

        monkeypatch.setattr(trainer.model.clip, "encode_text", run_out)
        return trainer

    return make


ON_GPU, ON_CPU = torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError(
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate")


@pytest.mark.parametrize(("error", "limit", "then"), [
    (ON_GPU, 1000, 500), (ON_GPU, 0, 8192), (ON_CPU, 1000, 500), (ON_CPU, 1, 1)])
def test_running_out_of_memory_once_halves_the_pieces_and_says_so(short_of_memory, caplog, error, limit, then):
    trainer = short_of_memory(1, error, "TRAIN.MAX_TOKENS", limit)
    trainer.train()
    assert trainer.model.clip.max_tokens == then
    assert sum("Out of memory" in r.message and f"MAX_TOKENS {then}" in r.message for r in caplog.records) == 1


def test_running_out_of_memory_again_is_told_with_the_way_out(short_of_memory):
    with pytest.raises(UserError, match=r"pieces of 500 tokens \(.*Set a smaller DATALOADER.TRAIN_X.BATCH_SIZE"):
        short_of_memory(2, torch.cuda.OutOfMemoryError("CUDA out of memory."), "TRAIN.MAX_TOKENS", 1000).train()


def test_any_other_error_is_left_as_it_is(short_of_memory):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        short_of_memory(1, RuntimeError("mat1 and mat2 shapes cannot be multiplied")).train()


def test_without_learned_text_nothing_can_be_halved_and_the_message_says_what_can(make_cfg, monkeypatch):
    trainer = build_trainer(make_cfg("VPT"))

    def run_out(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(trainer.model.clip, "encode_image", run_out)
    with pytest.raises(UserError, match="Memory ran out in a training step.*BATCH_SIZE") as stop:
        trainer.train()
    assert "MAX_TOKENS" not in str(stop.value)
