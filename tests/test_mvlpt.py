"""MVLPT: several tasks in one model, beside the authors' numbers; and the dataset of several tasks."""
import json

import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, encode_texts
from dassl.config import CfgNode, get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import build_trainer
from dassl.utils import UserError
from datasets import extend_cfg
from datasets.tasks import Tasks
from tests.parts.five_steps import follow
from trainers.mvlpt import MVLPT
from trainers.parts.classes import Classes
from trainers.parts.tasks import of_own_task, only_own_task


def options(**changed):
    return CfgNode({"PROMPT": "upt", "LOSS": "own", "N_CTX": 4, "CTX_INIT": "", "CLASS_TOKEN_POSITION": "middle",
                    "N_CTX_VISION": 4, "PROMPT_DEPTH_VISION": 3, "PROJECT_DIM": 32, "JOINT": False, **changed})


class _Stub(MVLPT):
    """The loss alone, without data or loop."""

    def __init__(self, loss, tasks):
        self.cfg, self.device = CfgNode({"TRAINER": {"MVLPT": {"LOSS": loss}}}), torch.device("cpu")
        self.of_class = tasks

    task_of_class = property(lambda self: self.of_class)


class _Zeroed(torch.nn.Module):
    """In evaluation, the logits of other tasks are 0, as in the authors' forward."""

    def __init__(self, model, own):
        super().__init__()
        self.model, self.own, self.prompt_learner = model, own, model.prompt_learner

    def forward(self, images):
        out = self.model(images)
        out.logits = out.logits if self.training else out.logits * self.own
        return out


def test_five_steps_over_two_tasks_are_the_authors(golden):
    from random_clip import state_dict

    theirs = golden("mvlpt_upt_2task_pertask")
    clip = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip")))
    model = MVLPT.build(clip, Classes(theirs.classnames), options())
    bounds, order = json.loads(str(theirs.data["task_class_idx"])), list(theirs.json("task_class_idx"))
    of_class = torch.tensor([next(i for i, name in enumerate(order) if bounds[name][0] <= c < bounds[name][1])
                             for c in range(len(theirs.classnames))])
    step = iter(range(100))
    tasks = theirs.tensor("tasks")

    def loss(out, images, labels):
        batch = {"label": labels, "domain": tasks[next(step)]}
        assert torch.equal(of_class[labels], batch["domain"])
        return _Stub("zeroed", of_class).loss(out, batch)["ce"]

    follow(_Zeroed(model, of_own_task(of_class, tasks[0])), theirs, loss)


@pytest.mark.parametrize("kind", ["own", "union", "zeroed"])
def test_each_loss_is_that_of_its_formula(kind):
    of_class, tasks, labels = torch.tensor([0, 0, 1]), torch.tensor([0, 1]), torch.tensor([1, 2])
    logits = torch.randn(2, 3)
    ours = _Stub(kind, of_class).loss(type("Out", (), {"logits": logits})(), {"label": labels, "domain": tasks})["ce"]
    if kind == "own":
        rows = [F.cross_entropy(logits[:1, :2], torch.tensor([1])), F.cross_entropy(logits[1:, 2:], torch.tensor([0]))]
    else:
        logits = logits if kind == "union" else logits * of_own_task(of_class, tasks)
        rows = [F.cross_entropy(logits[i:i + 1], labels[i:i + 1]) for i in range(2)]
    torch.testing.assert_close(ours, sum(rows) / 2)


@pytest.mark.parametrize("prompt, learned", [("text", {"ctx"}), ("visual", {"vpt_embeddings", "vpt_embeddings_deep"})])
def test_prompts_of_one_tower_learn_nothing_else(tiny_clip, prompt, learned):
    model = MVLPT.build(tiny_clip, Classes(["cat", "dog"]), options(PROMPT=prompt))
    assert set(model.prompt_learner.state_dict()) == learned


@pytest.mark.parametrize("depth", [1, 3])
def test_the_authors_file_of_visual_prompts_gives_what_their_description_says(tiny_clip, depth):
    """Behind the class token, after ln_pre; later blocks exchange them. No contexts, one sentence for all datasets."""
    names, images, W = ["cat", "ice_cream"], torch.randn(2, 3, 32, 32), tiny_clip.vision_width
    theirs = {"vpt_embeddings": torch.randn(1, 4, W), "vpt_embeddings_deep": torch.randn(2, 4, W)}
    theirs = dict(list(theirs.items())[:1 + (depth > 1)])
    model = MVLPT.build(tiny_clip, Classes(names, "a drawing of {}."), options(PROMPT="visual",
                                                                               PROMPT_DEPTH_VISION=depth))
    model.prompt_learner.load_state_dict({**theirs, "token_prefix": torch.zeros(2, 1, W)})
    assert MVLPT.options_of(theirs) == {"PROMPT": "visual", "N_CTX_VISION": 4, "PROMPT_DEPTH_VISION": depth}
    assert MVLPT.options_of({**theirs, "ctx": torch.zeros(4, W)}) is MVLPT.options_of({}) is None
    assert all(torch.equal(value, theirs[name]) for name, value in model.prompt_learner.state_dict().items())
    features, layers = [], torch.cat([*theirs.values()])
    for image in images:
        patches = tiny_clip.visual.conv1(image[None])[0].flatten(1).T
        x = torch.cat([tiny_clip.visual.class_embedding[None], patches]) + tiny_clip.visual.positional_embedding
        x = tiny_clip.visual.ln_pre(x)
        for i, block in enumerate(tiny_clip.visual.transformer.resblocks):
            if i < depth:
                x = torch.cat([x[:1], layers[i], x[1 + (4 if i else 0):]])
            x = block(x[None])[0]
        features.append(tiny_clip.visual.ln_post(x[0]) @ tiny_clip.visual.proj)
    texts = encode_texts(tiny_clip, ["a photo of a cat.", "a photo of a ice cream."])
    logits = tiny_clip.scale * F.normalize(torch.stack(features), dim=-1) @ texts.T
    torch.testing.assert_close(model(images).logits, logits, rtol=0, atol=1e-5 * float(logits.abs().max()))


def _tasks_cfg(make_cfg, *extra):
    return make_cfg("MVLPT", "DATASET.TASKS", "('Toy', 'ToyOther')", *extra, dataset="Tasks")


def test_two_tasks_are_learned_together_tested_apart_and_start_a_third_run(make_cfg, tmp_path):
    trainer = build_trainer(_tasks_cfg(make_cfg))
    trainer.train()
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(record["domains"]) == ["Toy", "ToyOther"] and record["num_classes"] == 7
    batch, logits, _ = next(trainer.answers(trainer.test_loader, "test"))
    own = of_own_task(trainer.task_of_class, batch["domain"])
    assert torch.equal(logits.isinf(), ~own)
    first = {k: v.clone() for k, v in trainer.model.prompt_learner.state_dict().items()}
    second = build_trainer(make_cfg("MVLPT", "MODEL.INIT_WEIGHTS", str(tmp_path / "run"), dataset="ToyOther"))
    assert all(torch.equal(first[k], v) for k, v in second.model.prompt_learner.state_dict().items())
    assert second.task_of_class is None


def test_batches_mix_the_tasks_in_the_seeds_order(make_cfg):
    def order():
        trainer = build_trainer(_tasks_cfg(make_cfg))
        torch.manual_seed(5)
        return [batch["impath"] for batch in trainer.train_loader_x], [batch["domain"] for batch in
                                                                       trainer.train_loader_x]

    (one, domains), (other, _) = order(), order()
    assert one == other and any(len(set(found.tolist())) == 2 for found in domains)


@pytest.mark.parametrize("key, value", [("PROMPT", "audio"), ("LOSS", "both")])
def test_unknown_choices_are_refused(make_cfg, key, value):
    with pytest.raises(UserError, match=f"{key}.*{value}"):
        build_trainer(make_cfg("MVLPT", f"TRAINER.MVLPT.{key}", value))


class _Empty(DatasetBase):
    def __init__(self, cfg):
        super().__init__(train_x=[Datum("a.png", 0, 0, "cat")], test=[])


@pytest.mark.parametrize("tasks, got", [((), "empty"), (("Toy", "Toi"), "'Toi'"), (("Toy", "Toy"), "twice"),
                                        (("Toy", "_Empty"), "_Empty.*no test"), (("Toy", "_Twin"), "'red square'")])
def test_tasks_that_cannot_be_learned_together_are_refused(make_cfg, tasks, got):
    make_cfg("MVLPT")                                       # registers the toy sets
    twin = type("_Twin", (DATASET_REGISTRY.get("Toy"),), {})
    for kind in (_Empty, twin):
        DATASET_REGISTRY.register(force=True)(kind)
    cfg = make_cfg("MVLPT", dataset="Tasks").clone()
    cfg.defrost()
    cfg.DATASET.TASKS = tasks
    with pytest.raises(UserError, match=got):
        Tasks(cfg)
    if "_Twin" in tasks:
        cfg.DATASET.SAME_NAMES = "keep"
        assert len(Tasks(cfg).classnames) == 8


def test_own_task_masks_are_those_of_the_formula():
    logits = torch.zeros(1, 3)
    assert only_own_task(logits, torch.tensor([0, 1, 1]), torch.tensor([1])).tolist()[0][0] == float("-inf")
    cfg = get_cfg_default()
    extend_cfg(cfg)
    assert cfg.DATASET.SAME_NAMES == "refuse"
