"""EVP beside the authors' own code: five of its steps, whose length does not depend on the gradient's."""
import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP
from dassl.config import CfgNode
from dassl.engine import build_trainer
from tests.parts.five_steps import assert_near
from trainers.evp import EVP
from trainers.parts.classes import Classes
from trainers.parts.pixel_prompt import UnitGradientPrompt


def test_five_steps_are_those_of_the_authors_code(golden, tiny_clip_weights):
    theirs, clip = golden("evp_randinit"), FrozenCLIP.from_state_dict(tiny_clip_weights)
    template = str(theirs.data["template"])
    model = EVP.build(clip, Classes(theirs.classnames, image_size=24), CfgNode({"TEMPLATE": template}))
    model.prompt_learner.load_state_dict({"perturbation": theirs.tensor("param/perturbation")})
    program = model.brick("pixel").program
    rim = theirs.tensor("mask").bool()
    # Under the image their canvas keeps what it started with: zero, but not in this file. Here it is the image's.
    inside = theirs.tensor("param/perturbation")[:, 4:-4, 4:-4]
    images, labels = theirs.tensor("images").float() + inside, theirs.tensor("labels")
    with torch.no_grad():
        assert_near(model(images[0]).logits, theirs.tensor("logits"))
    norm = theirs.tensor("grad/noise_mean").norm()
    for step, lr in enumerate(theirs.data["lrs"]):
        loss = F.cross_entropy(model(images[step]).logits, labels[step])
        assert loss.item() == pytest.approx(theirs.data["losses"][step], rel=1e-5)
        program.grad = None
        loss.backward()
        if step == 0:
            assert_near(program.grad, theirs.tensor("grad/noise_mean")[rim] / norm)
        torch.optim.SGD([program], float(lr)).step()
        if step in (0, 4):
            assert_near(program.detach(), theirs.tensor(f"after{step + 1}/perturbation")[rim], 5e-5 if step else 1e-5)
    with torch.no_grad():
        assert_near(model(images[0]).logits, theirs.tensor("logits_after5"), 5e-5)


def test_every_pixel_outside_the_image_learns_and_none_inside():
    prompt = UnitGradientPrompt(9, 4)
    with torch.no_grad():
        prompt.program.fill_(2.0)
    canvas = prompt(torch.zeros(1, 3, 4, 4))[0]
    assert (canvas == 2).sum() == 3 * (81 - 16) and (canvas[:, 3:7, 3:7] == 0).all()


def test_a_step_of_the_trainer_moves_the_canvas_by_the_rate(make_cfg):
    trainer = build_trainer(make_cfg("EVP", "OPTIM.LR", 0.5))
    batch, prompt = next(iter(trainer.train_loader_x)), trainer.model.brick("pixel")
    canvas = torch.zeros(3, 32, 32, requires_grad=True)
    padded = F.pad(batch["img"], (4, 4, 4, 4)) + canvas
    clip = trainer.model.clip
    features = clip.encode_image((padded - trainer.model.mean) / trainer.model.std)
    F.cross_entropy(clip.scale * features @ trainer.model.fixed_text.t(), batch["label"]).backward()
    step = -0.5 * canvas.grad / canvas.grad.norm()
    trainer.num_batches = 2
    trainer.forward_backward(batch)
    torch.testing.assert_close(prompt.border().detach(), F.pad(torch.zeros(3, 24, 24), (4,) * 4, value=1) * step,
                               rtol=1e-4, atol=1e-7)
    assert trainer.optim.param_groups[0]["momentum"] == trainer.optim.param_groups[0]["weight_decay"] == 0


def test_other_steps_than_plain_ones_are_warned_of(make_cfg, caplog):
    build_trainer(make_cfg("EVP"))
    assert "plain steps" not in caplog.text
    build_trainer(make_cfg("EVP", "OPTIM.MOMENTUM", 0.5))
    assert "got sgd, 0.5 and 0.0" in caplog.text


def test_names_are_read_in_lower_case_without_hyphens(tiny_clip):
    options = CfgNode({"TEMPLATE": "this is a photo of a {}"})
    texts = [EVP.build(tiny_clip, Classes([name, "dog"], image_size=24), options).fixed_text
             for name in ("Great-White_Shark", "great white shark")]
    assert torch.equal(*texts)
