"""ProDA's prompts and its bound against slow literal readings of the recipe."""
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from clip import InputError, TextTokens, tokenize
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import follow
from trainers.parts.classes import Classes
from trainers.parts.losses import score_variance, similarity_of_pairs
from trainers.parts.prompt_set import PromptSet
from trainers.proda import ProDA

NAMES = ["cat", "yorkshire_terrier", "737-200"]


def build(clip, P=4, n=5):
    torch.manual_seed(3)
    return ProDA.build(clip, Classes(NAMES), CfgNode({"N_PROMPT": P, "N_CTX": n, "PROMPT_BS": 2, "ALPHA": 1.0}))


def literal_features(clip, ctx, p, name):
    """One prompt of one class: the first quarter behind the name, the next around it, the last half before it."""
    P, n = ctx.shape[:2]
    ahead = 0 if p < P // 4 else n // 2 if p < P // 2 else n
    ids = tokenize(name.replace("_", " ") + ".")[0]
    end = int(ids.argmax())
    start, words, stop = clip.embed_tokens(ids)[:end + 1].split([1, end - 2, 2])
    whole = torch.cat([start, ctx[p, :ahead], words, ctx[p, ahead:], stop])[None]
    return clip.encode_text(TextTokens(whole, torch.tensor([whole.shape[1] - 1])))[0]


@pytest.mark.parametrize(("P", "drawn"), [(4, range(4)), (8, [5, 1, 7, 2]), (8, [0, 1]), (1, [0])])
def test_each_prompt_has_the_name_in_its_place(tiny_clip, P, drawn):
    model = build(tiny_clip, P)
    text = model.brick("text")
    with text.only(drawn):
        features = model.text_features()
    for row, p in zip(features, sorted(drawn), strict=True):
        theirs = torch.stack([literal_features(tiny_clip, text.ctx, p, name) for name in NAMES])
        torch.testing.assert_close(row, theirs, rtol=0, atol=1e-5)
    assert model.text_features().shape == (P, 3, 32)
    free, ctx = tiny_clip.encode_text(text.without_classes()), text.ctx
    theirs = torch.stack([literal_features(tiny_clip, ctx, p, "") if p >= P // 2 else free[p] for p in range(P)])
    torch.testing.assert_close(free, theirs, rtol=0, atol=1e-5)


def test_the_variance_is_that_of_the_covariance_matrices():
    torch.manual_seed(0)
    P, C, D, B = 4, 3, 5, 6
    x, texts = F.normalize(torch.randn(B, D), dim=-1), F.normalize(torch.randn(P, C, D), dim=-1)
    labels = torch.randint(C, (B,))
    centred = texts - texts.mean(0)
    covariance = [centred[:, :, d].T @ centred[:, :, d] / (P + 1) for d in range(D)]        # D times (C, C)
    found = score_variance(x, texts, labels)
    for b, y in enumerate(labels.tolist()):
        R = sum(x[b, d] ** 2 * covariance[d] for d in range(D))
        theirs = torch.stack([R[y, y] + R[c, c] - 2 * R[y, c] for c in range(C)])
        torch.testing.assert_close(found[b], theirs, rtol=1e-5, atol=1e-6)
    assert found.min() > -1e-7


def test_similarity_counts_each_pair_but_not_a_prompt_with_itself():
    features = F.normalize(torch.randn(4, 6), dim=-1)
    pairs = [abs(features[i] @ features[j]) for i in range(4) for j in range(i)]
    torch.testing.assert_close(similarity_of_pairs(features), sum(pairs) / len(pairs))
    assert similarity_of_pairs(features[:1]) == 0


def test_the_classifier_is_a_mean_that_is_not_normalised(tiny_clip):
    model, image = build(tiny_clip).eval(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        out = model(image)
    mean = out.text_features.mean(0)
    assert mean.norm(dim=-1).max() < 1 - 1e-6
    torch.testing.assert_close(out.logits, tiny_clip.scale * out.image_features @ mean.T)


def test_every_pass_sees_each_prompt_once_and_a_resumed_one_goes_on(make_cfg, tmp_path):
    trainer = build_trainer(make_cfg("ProDA", "TRAINER.PRODA.N_PROMPT", 8, "TRAINER.PRODA.PROMPT_BS", 2))
    batch = next(iter(trainer.train_loader_x))
    drawn, text = [], trainer.model.brick("text")
    text.register_forward_pre_hook(lambda text, _: drawn.append(list(text.drawn)))
    for step in range(8):
        if step == 2:
            state = trainer.training_state()
        trainer.output(batch)
    assert [sorted(sum(part, [])) for part in (drawn[:4], drawn[4:])] == [list(range(8))] * 2
    other = build_trainer(make_cfg("ProDA", "TRAINER.PRODA.N_PROMPT", 8, "TRAINER.PRODA.PROMPT_BS", 2))
    other.load_training_state(state)
    assert sorted(other.unseen) == sorted(drawn[2] + drawn[3]) and list(text.drawn) == list(range(8))


def test_a_checkpoint_of_ours_and_of_others_says_its_prompts(tiny_clip):
    weights = build(tiny_clip, 8).prompt_learner.state_dict()
    assert ProDA.options_of(weights) == {"N_PROMPT": 8, "N_CTX": 5}
    theirs = {**weights, "nc_token_prefix": torch.zeros(1, 1, 64), "nc_token_suffix": torch.zeros(1, 71, 64)}
    assert ProDA.options_of(theirs) == {"N_PROMPT": 8, "N_CTX": 5}
    assert ProDA.options_of({"ctx": torch.zeros(5, 64)}) is None
    build(tiny_clip, 8).prompt_learner.load_state_dict({f"prompt_learner.{k}": v for k, v in theirs.items()})


@pytest.mark.parametrize("P", [0, 2, 6, -4])
def test_a_number_without_quarters_is_refused(tiny_clip, P):
    with pytest.raises(InputError, match=f"1 or a multiple of 4, got {P}"):
        PromptSet(tiny_clip, NAMES, 4, P)


@pytest.mark.parametrize("drawn", [0, 3, 16])
def test_steps_must_share_the_prompts_evenly(make_cfg, drawn):
    with pytest.raises(UserError, match=f"PROMPT_BS must share N_PROMPT 8 evenly, got {drawn}"):
        build_trainer(make_cfg("ProDA", "TRAINER.PRODA.N_PROMPT", 8, "TRAINER.PRODA.PROMPT_BS", drawn))


def test_five_training_steps_follow_the_authors(tiny_clip, golden):
    theirs = golden("proda_8_by4")
    options = CfgNode({**theirs.options("PRODA"), "UNDERSCORES": True})
    model = ProDA.build(tiny_clip, Classes(theirs.classnames), options)
    text = model.brick("text")
    drawn = iter(theirs.tensor("prompt_index").tolist())
    text.register_forward_pre_hook(lambda text, _: setattr(text, "drawn", sorted(next(drawn)) if text.training
                                                           else range(8)))
    trainer = SimpleNamespace(model=model, options=options)
    follow(model, theirs, lambda out, images, labels: sum(ProDA.loss(trainer, out, {"label": labels}).values()))
