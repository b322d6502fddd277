"""Pools of prompts, and prefixes on keys and values, against the authors' numbers and literal formulas."""
import pytest
import torch
import torch.nn.functional as F
from vit_weights import draw

from clip import InputError
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import follow
from tests.parts.timm_vit import vit_of
from trainers.l2p import L2P
from trainers.parts.classes import Classes
from trainers.parts.queried import ComposedPrefixes, DualPrefixes, PromptPool

CLASSES = Classes([str(i) for i in range(10)])


class Clipped(torch.optim.Adam):
    """After gradients were scaled down to norm 1, as in the authors' loop."""

    def step(self, closure=None):
        torch.nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 1.0)
        return super().step(closure)


@pytest.fixture
def plain_vit(golden, tiny_clip_weights):
    """timm's ViT as the image tower: no norm before the blocks, biased patches, GELU, norms with eps 1e-6."""
    return vit_of(draw(golden("l2p_persample").json("weights_order")), tiny_clip_weights)


def l2p_options(**own):
    return CfgNode({"SIZE": 6, "LENGTH": 3, "TOP": 2, "PULL": 0.1, "BATCHWISE": False, "HEAD": "linear", **own})


def test_l2p_takes_the_authors_steps(golden, plain_vit):
    theirs = golden("l2p_persample")
    model = L2P.build(plain_vit, CLASSES, l2p_options())
    pool, position = model.brick("visual"), theirs.tensor("pos_embed")[0]
    pool.position.copy_(position[1:7])                  # random in the file; their loader has the class token's
    plain_vit.visual.positional_embedding.data = torch.cat([position[:1], position[7:]])
    query_positions = draw(theirs.json("weights_order"))["pos_embed"][0]
    encode = plain_vit.encode_image

    def with_positions_of_the_query(images, tuner=None, **how):      # theirs comes from another ViT
        own = plain_vit.visual.positional_embedding.data
        if tuner is None:
            plain_vit.visual.positional_embedding.data = torch.tensor(query_positions)
        try:
            return encode(images, tuner, **how)
        finally:
            plain_vit.visual.positional_embedding.data = own

    plain_vit.encode_image = with_positions_of_the_query
    theirs.data = {**{k: theirs.data[k] for k in theirs.data.files}, "images": theirs.data["images"].astype("float32")}
    theirs.data |= {k.replace("grad_unclipped", "grad"): v for k, v in theirs.data.items() if "grad_unclipped/" in k}
    own_classes = torch.arange(10) < 5
    chosen = []

    def loss(out, images, labels):
        chosen.append(out.aux["chosen"])
        return F.cross_entropy(out.logits.masked_fill(~own_classes, -torch.inf), labels) - 0.1 * out.aux["similarity"]

    follow(model, theirs, loss, {"visual.prompts": "prompt.prompt", "visual.keys": "prompt.prompt_key",
                                 "head.weight": "head.weight", "head.bias": "head.bias"},
           optimiser=lambda learned: Clipped(learned.values(), 0.001875))
    assert all(set(a.tolist()) == set(b.tolist()) for step, found in enumerate(chosen)
               for a, b in zip(found, theirs.tensor("prompt_idx_all")[step], strict=True))


def test_a_batch_votes_for_the_prompts_of_all_its_images_only_where_that_is_asked_for(tiny_clip):
    query = torch.randn(6, 64)
    for batchwise in (False, True):
        torch.manual_seed(0)
        pool = PromptPool(tiny_clip, 8, 2, 3, batchwise)
        found = pool.ask(query)
        cosines = torch.stack([F.cosine_similarity(q[None], pool.keys) for q in query])
        own = [set(sorted(range(8), key=lambda m: -row[m].item())[:3]) for row in cosines]
        if not batchwise:
            assert [set(row.tolist()) for row in found["chosen"]] == own
            assert torch.equal(pool.ask(query[:2])["chosen"], found["chosen"][:2])
        else:
            votes = sorted((sum(m in row for row in own) for m in range(8)), reverse=True)[:3]
            assert len(found["chosen"].unique(dim=0)) == 1
            assert sorted((sum(m in row for row in own) for m in found["chosen"][0].tolist()), reverse=True) == votes
        chosen = found["chosen"]
        literal = sum(cosines[b, m] for b in range(6) for m in chosen[b]) / 6
        torch.testing.assert_close(found["similarity"], literal)


def test_a_task_trains_prompts_of_its_own_which_start_as_the_former_ones(tiny_clip):
    pool, query = PromptPool(tiny_clip, 6, 2, 2, per_task=True), torch.randn(3, 64)
    free = pool.ask(query)["chosen"]                        # before any task, as in training on all classes at once
    before = pool.prompts.detach().clone()
    for task in (0, 1, 2):
        pool.begin(task, 3)
        assert pool.ask(query)["chosen"].tolist() == [[2 * task, 2 * task + 1]] * 3
    torch.testing.assert_close(pool.prompts.detach(), before[[0, 1] * 3], rtol=0, atol=0)
    assert torch.equal(pool.eval().ask(query)["chosen"], free)
    again = PromptPool(tiny_clip, 6, 2, 2, per_task=True)
    again.load_state_dict(pool.state_dict())                # as a run that resumes within a task
    assert again.ask(query)["chosen"].tolist() == [[4, 5]] * 3
    with pytest.raises(InputError, match="at least 8, got 6"):
        pool.begin(0, 4)


def test_prompts_stand_behind_the_class_token_with_its_position(tiny_clip):
    pool = PromptPool(tiny_clip, 4, 2, 2)
    pool.ask(torch.randn(1, 64))
    x = torch.randn(1, 17, 64)
    y = pool.enter(-1, x)
    tokens = torch.cat([pool.prompts[m] for m in pool.asked[0]]) + tiny_clip.visual.positional_embedding[0]
    assert torch.equal(y[0], torch.cat([x[0, :1], tokens, x[0, 1:]])) and pool.enter(0, x) is x


def literal_block(block, x, keys, values):
    """One head at a time, with keys and values in front of those of x; x (L, W), one image."""
    h, W = block.ln_1(x), x.shape[1]
    q, k, v = (h @ block.attn.in_proj_weight.t() + block.attn.in_proj_bias).split(W, dim=1)
    k, v, heads = torch.cat([keys, k]), torch.cat([values, v]), block.attn.heads
    found = [((q[:, s] @ k[:, s].t()) / (W // heads) ** 0.5).softmax(-1) @ v[:, s]
             for s in (slice(i * W // heads, (i + 1) * W // heads) for i in range(heads))]
    x = x + block.attn.out_proj(torch.cat(found, dim=1))
    return x + block.mlp(block.ln_2(x))


@pytest.mark.parametrize("at", [0, 2])
def test_a_prefix_is_in_front_of_keys_and_values_in_the_last_block_too(tiny_clip, at):
    keys, values, images = torch.randn(2, 3, 64), torch.randn(2, 3, 64), torch.randn(2, 3, 32, 32)

    class Fixed:
        def prefix(self, block, x):
            return (keys, values) if block == at else None

    visual = tiny_clip.visual
    found = tiny_clip.encode_image(images, Fixed(), joint=False, unit_norm=False)
    for b in range(2):
        x = visual.conv1(images[b:b + 1]).flatten(2)[0].t()
        x = visual.ln_pre(torch.cat([visual.class_embedding[None], x]) + visual.positional_embedding)
        for i, block in enumerate(visual.transformer.resblocks):
            none = torch.zeros(0, 64)
            x = literal_block(block, x, *((keys[b], values[b]) if i == at else (none, none)))
        torch.testing.assert_close(found[b], visual.ln_post(x[0]), atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="image tower alone"):
        tiny_clip.encode_text(None, Fixed())


def test_dualprompt_trains_the_tasks_own_prompt_and_tests_the_nearest_key_so_far(tiny_clip):
    prompts = DualPrefixes(tiny_clip, (0,), (1, 2), 4, (2, 6))
    prompts.begin(2, 4)
    query, x = torch.randn(5, 64), torch.randn(5, 17, 64)
    found = prompts.ask(query)
    literal = sum(1 - F.cosine_similarity(query[b], prompts.keys[row, 2], dim=0) for b in range(5) for row in range(2))
    torch.testing.assert_close(found["distance"], literal)
    for training in (True, False):
        prompts.train(training)
        assert prompts.prefix(3, x) is None and torch.equal(prompts.prefix(0, x)[1][4], prompts.shared[0, 1:])
        for row, block in enumerate((1, 2)):
            keys, values = prompts.prefix(block, x)
            for b in range(5):
                near = [F.cosine_similarity(query[b], prompts.keys[row, m], dim=0).item() for m in range(3)]
                task = 2 if training else near.index(max(near))
                assert torch.equal(torch.cat([keys[b], values[b]]), prompts.expert[row, task])


def test_coda_prompt_is_the_literal_weighted_sum_and_trains_the_present_components_alone(tiny_clip):
    prompts = ComposedPrefixes(tiny_clip, (0, 2), 6, 4)
    former = prompts.components.detach().clone()
    prompts.begin(1, 3)
    assert torch.equal(prompts.components[:, :2], former[:, :2])
    assert not torch.equal(prompts.components[:, 2], former[:, 2])
    query, x = torch.randn(3, 64), torch.randn(3, 17, 64)
    found = prompts.ask(query)
    keys, values = prompts.prefix(2, x)
    for b in range(3):
        total = 0
        for m in range(4):                              # of the first two tasks
            weight = F.cosine_similarity(query[b] * prompts.attention[1, m], prompts.keys[1, m], dim=0)
            total = total + weight * prompts.components[1, m]
        torch.testing.assert_close(torch.cat([keys[b], values[b]]), total)
    (keys.sum() + values.sum() + found["overlap"]).backward()
    for parameter in prompts.parameters():
        moved = parameter.grad.flatten(2).abs().sum(dim=2)                                  # (blocks, M)
        assert (moved[1, 2:4] > 0).all() and not moved[:, :2].any() and not moved[:, 4:].any()
    for values in (prompts.keys, prompts.attention, prompts.components.flatten(2)):
        torch.testing.assert_close(values[0, :4] @ values[0, :4].t(), torch.eye(4), atol=1e-5, rtol=0)
    literal = 0
    with torch.no_grad():
        prompts.keys.add_(0.1)
        prompts.span = 0, 4
        for values in (prompts.keys, prompts.attention, prompts.components.flatten(2)):
            for block in values[:, :4]:
                literal += sum(((block[i] @ block[j]).item() - (i == j)) ** 2 for i in range(4) for j in range(4)) / 16
        assert prompts.ask(query)["overlap"].item() == pytest.approx(literal, rel=1e-4)


def test_components_are_drawn_orthogonal_to_former_ones_whatever_training_made_of_them(tiny_clip):
    prompts = ComposedPrefixes(tiny_clip, (0,), 6, 4)
    with torch.no_grad():
        for values in (prompts.keys, prompts.attention, prompts.components):
            values.mul_(3.0).add_(torch.randn_like(values))
    prompts.begin(1, 3)
    for values in (prompts.keys[0], prompts.attention[0], prompts.components.flatten(2)[0]):
        former = F.normalize(values[:2], dim=-1)
        torch.testing.assert_close(values[2:4] @ torch.cat([former, values[2:4]]).t(),
                                   torch.eye(4)[2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name, part", [("L2P", "prompts"), ("DualPrompt", "expert"), ("CODAPrompt", "components")])
def test_classes_that_arrive_in_tasks_are_learned_and_a_checkpoint_answers_the_same(make_cfg, tmp_path, name, part):
    cfg = make_cfg(name, "TRAIN.TASKS", 2, "OPTIM.MAX_EPOCH", 2)
    trainer = build_trainer(cfg)
    before = getattr(trainer.model.brick("visual"), part).detach().clone()
    trainer.train()
    assert not torch.equal(before, getattr(trainer.model.brick("visual"), part))
    images = next(iter(trainer.test_loader))["img"]
    again = build_trainer(make_cfg(name, seed=2))
    again.load_model(str(tmp_path / "run"))
    for each in (trainer, again):
        each.set_model_mode("eval")
    assert torch.equal(trainer.model_inference(images), again.model_inference(images))


def test_l2p_clips_the_gradients_of_a_step_together(make_cfg):
    trainer = build_trainer(make_cfg("L2P", "TRAINER.L2P.CLIP_NORM", 1e-3, "OPTIM.NAME", "sgd", "OPTIM.LR", 1.0,
                                     "OPTIM.MOMENTUM", 0.0, "OPTIM.WEIGHT_DECAY", 0.0))
    trainer.set_model_mode("train")
    before = [p.detach().clone() for p in trainer.model.prompt_learner.parameters()]
    trainer.num_batches, trainer.batch_idx = 2, 0
    trainer.forward_backward(next(iter(trainer.train_loader_x)))
    moved = sum((p - b).square().sum() for p, b in zip(trainer.model.prompt_learner.parameters(), before, strict=True))
    assert moved.sqrt().item() == pytest.approx(1e-3, rel=1e-3)


def test_a_leak_of_the_batch_is_recorded(make_cfg):
    assert "leaks" not in build_trainer(make_cfg("L2P")).run_record_fields()
    assert "batch" in build_trainer(make_cfg("L2P", "TRAINER.L2P.BATCHWISE", True)).run_record_fields()["leaks"]


@pytest.mark.parametrize("method, own, got", [
    (L2P, l2p_options(TOP=7), "1 to 6 prompts of a pool of 6, got 7"), (L2P, l2p_options(TOP=0), "got 0"),
    (L2P, l2p_options(SIZE=0), "got 0 of 3")])
def test_impossible_pools_are_refused(tiny_clip, method, own, got):
    with pytest.raises(InputError, match=got):
        method.build(tiny_clip, CLASSES, own)


@pytest.mark.parametrize("name, opts, got", [
    ("L2P", ["TRAINER.L2P.TOP", 11], "pool of 10, got 11"),
    ("L2P", ["TRAIN.TASKS", 3, "TRAINER.L2P.PER_TASK", True], "at least 15, .* got 10"),
    ("L2P", ["TRAINER.L2P.HEAD", "text"], "linear or texts, got 'text'"),
    ("DualPrompt", ["TRAIN.TASKS", 3, "TRAINER.DUALPROMPT.POOL", 2], "TRAIN.TASKS 3, one for each task, got 2"),
    ("DualPrompt", ["TRAINER.DUALPROMPT.EXPERT_LENGTH", 3], "even"),
    ("DualPrompt", ["TRAINER.DUALPROMPT.EXPERT_BLOCKS", "(7,)"], r"0 to 2, got \(0, 7\)"),
    ("CODAPrompt", ["TRAIN.TASKS", 3, "TRAINER.CODAPROMPT.COMPONENTS", 2], "TRAIN.TASKS 3, one for each task, got 2"),
    ("CODAPrompt", ["TRAINER.CODAPROMPT.LENGTH", 5], "length 5")])
def test_impossible_settings_are_the_users(make_cfg, name, opts, got):
    with pytest.raises(UserError, match=got):
        build_trainer(make_cfg(name, *opts))
