"""PromptKD: the divergence, the projector, and runs as teachers."""
import pytest
import torch
import torch.nn.functional as F

from clip import InputError
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from dassl.utils.classes_file import write_classes
from trainers.parts.classes import Classes
from trainers.promptkd import PromptKD
from trainers.taught import teacher_of

NAMES = ["cat", "yorkshire_terrier", "737-200"]
OPTIONS = {"TEACHER": "", "N_CTX_VISION": 2, "PROMPT_DEPTH_VISION": 3, "KD_WEIGHT": 10.0, "TEMPERATURE": 2.0}


def build(clip, **changes):
    torch.manual_seed(3)
    return PromptKD.build(clip, Classes(NAMES), CfgNode({**OPTIONS, **changes}))


def a_run(make_cfg, folder, trainer="CoOp", *opts):
    """Of a few steps, as tools/train.py leaves it."""
    cfg = make_cfg(trainer, "OPTIM.MAX_EPOCH", 1, "TEST.NO_TEST", True, *opts, output=folder)
    run = build_trainer(cfg)
    run.train()
    (folder / "config.yaml").write_text(cfg.dump())
    write_classes(str(folder), cfg, run.dm.dataset)
    return run


def test_logits_are_cosines_in_the_teachers_space(tiny_clip):
    model, images, text = build(tiny_clip).eval(), torch.randn(2, 3, 32, 32), F.normalize(torch.randn(3, 48), dim=-1)
    model.head.take_text(text)
    out, p = model(images), model.head.projector
    x = tiny_clip.encode_image(images, model.brick("visual"), unit_norm=False)
    x = x @ p[0].weight[:, :, 0, 0].T + p[0].bias
    x = ((x - p[1].running_mean) / (p[1].running_var + p[1].eps).sqrt() * p[1].weight + p[1].bias).relu()
    x = F.normalize(x @ p[3].weight[:, :, 0, 0].T + p[3].bias, dim=-1)
    torch.testing.assert_close(out.image_features, x)
    torch.testing.assert_close(out.logits, tiny_clip.scale * x @ text.T, rtol=1e-5, atol=1e-4)
    with pytest.raises(InputError, match="4 classes cannot teach 3"):
        model.head.take_text(torch.zeros(4, 48))


def test_the_loss_is_a_mean_over_images_and_classes_without_labels(tiny_clip):
    model, images = build(tiny_clip), torch.randn(2, 3, 32, 32)
    trainer, taught = PromptKD.__new__(PromptKD), torch.randn(2, 3) * 5
    trainer.__dict__.update(model=model, teacher=(None, lambda _: taught),
                            cfg=CfgNode({"TRAINER": {"PROMPTKD": OPTIONS}}))
    out = model(images)
    p, q = (taught / 2).softmax(1), (out.logits / 2).softmax(1)
    literal = 10 * 4 * sum(p[b, c] * (p[b, c].log() - q[b, c].log()) for b in range(2) for c in range(3)) / 6
    torch.testing.assert_close(trainer.loss(out, {"img": images})["kd"], literal)


def test_a_run_teaches_and_is_not_needed_afterwards(make_cfg, tmp_path):
    run = a_run(make_cfg, tmp_path / "teacher")
    student = build_trainer(make_cfg("PromptKD", "TRAINER.PROMPTKD.TEACHER", tmp_path / "teacher", "TEST.NO_TEST", True,
                                     output=tmp_path / "student"))
    images = next(iter(student.test_loader))["img"]
    text, answers = student.teacher
    run.set_model_mode("eval")
    assert torch.equal(answers(images), run.model_inference(images)) and torch.equal(student.model.head.text, text)
    torch.testing.assert_close(text, run.model.text_features())
    student.train()
    later = build_trainer(make_cfg("PromptKD", "TRAINER.PROMPTKD.TEACHER", "/gone", output=tmp_path / "later"))
    later.load_model(str(tmp_path / "student"))
    for trainer in (student, later):
        trainer.set_model_mode("eval")
    assert torch.equal(later.model_inference(images), student.model_inference(images))
    with pytest.raises(UserError, match="none at /gone"):
        later.train()


def test_a_teacher_of_none_of_the_students_classes_is_warned_of(make_cfg, tmp_path, tiny_clip, caplog):
    a_run(make_cfg, tmp_path / "run")
    teacher_of(str(tmp_path / "run"), tiny_clip, Classes(["cat", "dog"]), torch.device("cpu"))
    assert "none of the student's classes" in caplog.text


def test_what_cannot_teach_is_refused(make_cfg, tmp_path, tiny_clip):
    with pytest.raises(UserError, match="not a run folder: it has no config.yaml"):
        teacher_of(str(tmp_path), tiny_clip, Classes(NAMES), torch.device("cpu"))
    a_run(make_cfg, tmp_path / "bound", "CoOp", "TRAINER.COOP.CSC", True)
    a_run(make_cfg, tmp_path / "several", "PLOT")
    for folder, message in (("bound", "for other classes than the student's"), ("several", "no single feature")):
        with pytest.raises(UserError, match=message):
            teacher_of(str(tmp_path / folder), tiny_clip, Classes(NAMES), torch.device("cpu"))


def test_the_authors_checkpoint_of_another_width_loads(tiny_clip):
    state = build(tiny_clip).prompt_learner.state_dict()
    assert PromptKD.options_of(state) == {"N_CTX_VISION": 2, "PROMPT_DEPTH_VISION": 3}
    assert PromptKD.options_of({"image_encoder.VPT": state["image_encoder.VPT"]}) is None
    wide = build(tiny_clip)
    wide.head.take_text(torch.randn(3, 48))
    theirs = {**wide.prompt_learner.state_dict(), "image_encoder.proj": torch.zeros(2)}
    del theirs["head.text"]
    model = build(tiny_clip)
    model.prompt_learner.load_state_dict(theirs)
    assert model.head.text.shape == (3, 48)
    assert torch.equal(model.head.projector[0].weight, wide.head.projector[0].weight)
