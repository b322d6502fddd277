"""IVLP's and PromptSRC's prompts, losses and average against the authors' numbers and slow literal formulas."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from clip import InputError
from clip.templates import IMAGENET_60
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import follow
from trainers.ivlp import IVLP
from trainers.parts.averaging import GaussianAverage
from trainers.parts.classes import Classes
from trainers.parts.prompted_model import Output
from trainers.parts.teacher import mean_text_features
from trainers.promptsrc import PromptSRC

NAMES = ["cat", "yorkshire_terrier", "737-200"]


def options(n_text=2, n_vision=3, text=3, vision=2, init="a photo of a"):
    return CfgNode({"N_CTX_TEXT": n_text, "N_CTX_VISION": n_vision, "PROMPT_DEPTH_TEXT": text,
                    "PROMPT_DEPTH_VISION": vision, "CTX_INIT": init, "PREC": "fp32"})


def test_promptsrc_takes_the_authors_steps(tiny_clip, golden):
    theirs = golden("promptsrc")
    c = theirs.options("PROMPTSRC")
    c.PROMPT_DEPTH_TEXT = c.PROMPT_DEPTH_VISION = 3                     # of 9, which their code cuts to the tower's
    classes = Classes(theirs.classnames)
    model = PromptSRC.build(tiny_clip, classes, c)
    texts = mean_text_features(tiny_clip, classes, IMAGENET_60, normalise_each=False)
    method = SimpleNamespace(model=model, options=c, teacher_text=texts, inputs=lambda batch: batch["img"])

    def loss(out, images, labels):
        return sum(PromptSRC.loss(method, out, {"img": images, "label": labels}).values())

    follow(model, theirs, loss)


def test_each_loss_term_is_its_formula(tiny_clip):
    B, C, D = 2, 3, 32
    images, labels = torch.randn(B, 3, 32, 32), torch.tensor([2, 0])
    model = PromptSRC.build(tiny_clip, Classes(NAMES), options())
    texts = F.normalize(torch.randn(C, D), dim=-1)
    c = SimpleNamespace(TEXT_LOSS_WEIGHT=3.0, IMAGE_LOSS_WEIGHT=7.0)
    method = SimpleNamespace(model=model, options=c, teacher_text=texts, inputs=lambda batch: batch["img"])
    with torch.no_grad():
        out = model(images)
        terms = PromptSRC.loss(method, out, {"img": images, "label": labels})
        frozen = tiny_clip.encode_image(images)
    scale, literal = float(tiny_clip.scale), 0.0
    for b in range(B):
        student = (scale * out.text_features @ out.image_features[b]).double().exp()
        teacher = (scale * texts @ frozen[b]).double().exp()
        student, teacher = student / student.sum(), teacher / teacher.sum()
        literal += sum(float(teacher[i] * (teacher[i] / student[i]).log()) for i in range(C))
    assert terms["kl"].item() == pytest.approx(literal / (B * C), rel=1e-4)
    assert terms["text"].item() == pytest.approx(3 * float((out.text_features - texts).abs().sum()) / (C * D), rel=1e-5)
    assert terms["image"].item() == pytest.approx(7 * float((out.image_features - frozen).abs().sum()) / (B * D),
                                                  rel=1e-5)


def test_the_average_is_that_of_the_epochs_weighted_by_a_gaussian():
    torch.manual_seed(0)
    module, seen = torch.nn.Linear(3, 2), []
    module.bias.requires_grad_(False)
    frozen = module.bias.clone()
    average = GaussianAverage(4, mean=3, std=0.5)
    for _ in range(4):
        with torch.no_grad():
            module.weight.normal_()
        seen.append(module.weight.detach().clone())
        average.add(module)
    density = [2.718281828459045 ** (-((e - 3) / 0.5) ** 2 / 2) for e in (1, 2, 3, 4)]
    average.load_into(module)
    literal = sum(d / sum(density) * w for d, w in zip(density, seen))
    torch.testing.assert_close(module.weight.detach(), literal, rtol=0, atol=1e-6)
    assert average.is_complete and torch.equal(module.bias, frozen) and list(average.sums) == ["weight"]


def test_an_average_far_from_all_epochs_is_the_nearest_one():
    assert GaussianAverage(3, mean=500, std=0.1).weights.tolist() == [0, 0, 1]


@pytest.mark.parametrize("case", ["stopped", "whole"])
def test_a_stopped_average_resumes_to_the_same_bits(make_cfg, tmp_path, case):
    opts = ("TEST.NO_TEST", True, "OPTIM.MAX_EPOCH", 3, "TRAINER.PROMPTSRC.GPA_MEAN", 2,
            "TRAINER.PROMPTSRC.GPA_STD", 1)
    whole = build_trainer(make_cfg("PromptSRC", *opts, output=tmp_path / "whole"))
    whole.train()
    if case == "stopped":
        stopped = build_trainer(make_cfg("PromptSRC", *opts, "TRAIN.CHECKPOINT_FREQ", 1, output=tmp_path / "stopped"))
        after_epoch = stopped.after_epoch

        def interrupted():
            after_epoch()
            if stopped.epoch == 1:
                raise KeyboardInterrupt

        stopped.after_epoch = interrupted
        with pytest.raises(KeyboardInterrupt):
            stopped.train()
    resumed = build_trainer(make_cfg("PromptSRC", *opts, "RESUME", tmp_path / case, output=tmp_path / case))
    resumed.train()
    assert resumed.average.added == 3
    for ours, theirs in zip(resumed.model.prompt_learner.parameters(), whole.model.prompt_learner.parameters()):
        assert torch.equal(ours, theirs)
    last = torch.load(tmp_path / "whole" / "prompt_learner" / "model.pth.tar-3", weights_only=True)["state_dict"]
    assert torch.equal(last["ctx"], whole.model.brick("text").ctx)
    torch.testing.assert_close(whole.average.sums["text.ctx"], last["ctx"], rtol=0, atol=0)


def test_an_average_of_other_epochs_is_refused():
    average, state = GaussianAverage(4, 2, 1), GaussianAverage(3, 2, 1).state()
    with pytest.raises(InputError, match="over 3 epochs cannot be continued over 4"):
        average.load_state(state)
    with pytest.raises(InputError, match="positive standard deviation, got 3 and 0"):
        GaussianAverage(3, 2, 0)


def test_a_checkpoint_without_its_average_is_not_continued(make_cfg, tmp_path):
    trained = build_trainer(make_cfg("PromptSRC", "TEST.NO_TEST", True))
    trained.train()
    file = tmp_path / "run" / "prompt_learner" / "model.pth.tar-2"
    state = torch.load(file, weights_only=False)
    torch.save({**state, "epoch": 1, "training": None}, file)            # as the authors' Dassl writes it
    resumed = build_trainer(make_cfg("PromptSRC", "RESUME", tmp_path / "run"))
    with pytest.raises(UserError, match="not their average"):
        resumed.train()


def test_a_teacher_of_other_classes_is_refused(tiny_clip):
    model = PromptSRC.build(tiny_clip, Classes(NAMES), options())
    images = torch.zeros(1, 3, 32, 32)
    method = SimpleNamespace(model=model, options=SimpleNamespace(), teacher_text=torch.zeros(5, 32),
                             inputs=lambda batch: batch["img"])
    out = Output(torch.zeros(1, 3), torch.zeros(1, 32), torch.zeros(3, 32))
    with pytest.raises(InputError, match=r"\(3, 32\), the teacher's \(5, 32\)"):
        PromptSRC.loss(method, out, {"img": images, "label": torch.zeros(1, dtype=torch.long)})


@pytest.mark.parametrize(("text", "vision"), [(3, 2), (1, 3), (2, 0)])
def test_a_checkpoint_has_the_authors_names_and_tells_its_depths(tiny_clip, text, vision):
    model = IVLP.build(tiny_clip, Classes(NAMES), options(text=text, vision=vision))
    weights = model.prompt_learner.state_dict()
    block = "{}_encoder.transformer.resblocks.{}.VPT_shallow".format
    assert weights.keys() == {"ctx", *(["image_encoder.VPT"] if vision else []),
                              *(block("text", i) for i in range(1, text)),
                              *(block("image", i) for i in range(1, vision))}
    found = IVLP.options_of(weights)
    assert found.pop("N_CTX_VISION", 3) == 3
    assert found == {"N_CTX_TEXT": 2, "PROMPT_DEPTH_TEXT": text, "PROMPT_DEPTH_VISION": vision}


def test_words_alone_on_one_block_are_left_to_coop():
    assert IVLP.options_of({"ctx": torch.zeros(4, 64)}) is None
    assert IVLP.options_of({}) is None


def test_prompts_of_the_two_towers_are_independent(tiny_clip):
    model, images = IVLP.build(tiny_clip, Classes(NAMES), options()), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        texts, features = model.text_features(), model.image_features(images)
        model.brick("visual").tokens.normal_()
        assert torch.equal(model.text_features(), texts) and not torch.allclose(model.image_features(images), features)


@pytest.mark.parametrize(("depths", "message"), [
    ({"text": 0}, "1 to 3 blocks of the text tower, got 0"), ({"text": 4}, "text tower, got 4"),
    ({"vision": 4}, "1 to 3 blocks.*got 4"), ({"vision": -1}, "1 to 3 blocks.*got -1"),
    ({"n_vision": 0}, "tokens, got 0"), ({"n_text": 5, "init": ""}, None)])
def test_depths_that_the_towers_do_not_have_are_refused(tiny_clip, depths, message):
    if message is None:
        assert IVLP.build(tiny_clip, Classes(NAMES), options(**depths)).brick("text").ctx.shape == (5, 64)
        return
    with pytest.raises(InputError, match=message):
        IVLP.build(tiny_clip, Classes(NAMES), options(**depths))
