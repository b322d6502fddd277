"""Runs that Dassl 0.6.3 left behind continue at the right learning rate."""
import pytest
import torch

from dassl.utils import set_random_seed


@pytest.mark.parametrize(("warmup", "kind"), [(0, "constant"), (1, "constant"), (3, "linear")])
@pytest.mark.parametrize("name", ["cosine", "multi_step", "single_step"])
def test_a_checkpoint_whose_schedule_is_an_object_resumes_at_the_rate_of_its_epoch(engine_cfg, tmp_path, warmup, name,
                                                                                   kind):
    """Dassl's `scheduler` entry holds the schedule after the warm-up as an object, never loaded; or nothing."""
    from dassl.engine import build_trainer

    def cfg(folder, resume=""):
        return engine_cfg(OUTPUT_DIR=str(tmp_path / folder), RESUME=resume and str(tmp_path / resume),
                          TRAIN__CHECKPOINT_FREQ=1, OPTIM__LR_SCHEDULER=name, OPTIM__STEPSIZE=(2, 3),
                          OPTIM__MAX_EPOCH=6, OPTIM__WARMUP_EPOCH=warmup, OPTIM__WARMUP_TYPE=kind)

    set_random_seed(1)
    whole = build_trainer(cfg("whole"))
    whole.train()
    path = tmp_path / "whole" / "linear" / "model.pth.tar-4"
    state = torch.load(path, weights_only=True)
    old = torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1), 3)
    state["scheduler"] = {"last_epoch": 4, "successor": old} if warmup else None
    del state["training"]
    torch.save(state, path)
    (path.parent / "checkpoint").write_text("model.pth.tar-4\n")
    resumed = build_trainer(cfg("resumed", resume="whole"))
    resumed.train()
    assert resumed.start_epoch == 4
    assert resumed.rates == pytest.approx(whole.rates[4:], rel=1e-12)
