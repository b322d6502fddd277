"""CLIPLoRA as a trainer: which towers learn, how many epochs its iterations are, and what it refuses."""
import re

import pytest
import torch
from open_clip.model import CLIP

from clip.open_clip_models import from_open_clip
from dassl.engine import build_trainer
from dassl.utils import UserError
from trainers._build import build_on
from trainers.clip_lora import CLIPLoRA
from trainers.parts.classes import Classes

SECTION = "TRAINER.CLIPLORA."


@pytest.mark.parametrize(("encoder", "learned"), [
    ("vision", {"visual.A", "visual.B"}), ("text", {"text_tuner.A", "text_tuner.B"}),
    ("both", {"visual.A", "visual.B", "text_tuner.A", "text_tuner.B"})])
def test_the_encoder_says_which_towers_learn_and_a_checkpoint_tells_the_options(encoder, learned, make_cfg):
    cfg = make_cfg("CLIPLoRA", SECTION + "ENCODER", encoder, SECTION + "RANK", 3, SECTION + "PROJECTIONS", "qvo")
    model = build_on(CLIPLoRA, cfg, Classes(["cat", "dog"]), torch.device("cpu"))[0]
    assert {name for name, _ in model.prompt_learner.named_parameters()} == learned
    saved = model.prompt_learner.state_dict()
    assert len(saved) == 3 * 3 * len(learned)
    assert CLIPLoRA.options_of(saved) == {"ENCODER": encoder, "PROJECTIONS": "qvo", "RANK": 3}
    assert CLIPLoRA.options_of({"ctx": torch.zeros(4, 64)}) is None and CLIPLoRA.options_of({}) is None


def test_names_in_a_checkpoint_are_the_authors(make_cfg, golden):
    model = build_on(CLIPLoRA, make_cfg("CLIPLoRA"), Classes(["cat", "dog"]), torch.device("cpu"))[0]
    theirs = {name.removeprefix("param/") for name in golden("cliplora_both").data.files if name.startswith("param/")}
    assert set(model.prompt_learner.state_dict()) == theirs and len(theirs) == 2 * 3 * 3 * 2


@pytest.mark.parametrize(("per_shot", "keep", "epochs"), [(5, False, 7), (5, True, 10), (0, False, 2), (1, False, 1)])
def test_iterations_per_shot_are_the_nearest_number_of_epochs(per_shot, keep, epochs, make_cfg):
    """4 classes of 4 images in batches of 6: 3 batches with the short one, 2 without; 5 * 4 iterations."""
    trainer = build_trainer(make_cfg("CLIPLoRA", SECTION + "ITERATIONS", per_shot, "DATALOADER.TRAIN_X.BATCH_SIZE", 6,
                                     "DATALOADER.TRAIN_X.DROP_LAST", keep, "OPTIM.MIN_LR", 1e-6, "OPTIM.LR", 1e-3))
    assert len(trainer.train_loader_x) == (2 if keep else 3)
    assert trainer.max_epoch == trainer.cfg.OPTIM.MAX_EPOCH == epochs
    for _ in range(epochs * len(trainer.train_loader_x)):
        trainer.optim.step()
        trainer.sched.step()
    assert trainer.get_current_lr() == pytest.approx(1e-6)


def test_texts_are_encoded_again_when_an_update_changes(make_cfg):
    trainer = build_trainer(make_cfg("CLIPLoRA", SECTION + "ENCODER", "text"))
    trainer.set_model_mode("eval")
    with torch.no_grad():
        before = trainer.model.text_features()
        assert trainer.model.text_features() is before
        trainer.model.brick("text_tuner").B.normal_(std=0.1)
        assert (trainer.model.text_features() - before).abs().max() > 1e-3


def test_a_resnet_has_no_image_tokens_to_update_but_its_texts_can_learn(make_cfg):
    torch.manual_seed(0)
    text = dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2)
    resnet = from_open_clip(CLIP(48, dict(layers=[1, 1, 1, 1], width=16, image_size=64), text, quick_gelu=True).eval())
    for encoder in ("vision", "both"):
        with pytest.raises(UserError, match="low-rank update of the image tower acts on the tokens of a vision tr"):
            build_on(CLIPLoRA, make_cfg("CLIPLoRA", SECTION + "ENCODER", encoder, "INPUT.SIZE", (64, 64)),
                     Classes(["cat"]), torch.device("cpu"), resnet)
    cfg = make_cfg("CLIPLoRA", SECTION + "ENCODER", "text", "INPUT.SIZE", (64, 64))
    model = build_on(CLIPLoRA, cfg, Classes(["cat", "dog"]), torch.device("cpu"), resnet)[0]
    model(torch.randn(2, 3, 64, 64)).logits.sum().backward()
    assert model.brick("text_tuner").B.grad.abs().max() > 0


@pytest.mark.parametrize(("key", "value"), [("ENCODER", "image"), ("ITERATIONS", -1), ("RANK", 65), ("DROPOUT", 1.5),
                                            ("POSITION", "top4"), ("PROJECTIONS", "x")])
def test_an_option_that_does_not_fit_is_refused_with_its_value(key, value, make_cfg):
    with pytest.raises(UserError, match=re.escape(str(value))):
        build_trainer(make_cfg("CLIPLoRA", SECTION + key, value))
