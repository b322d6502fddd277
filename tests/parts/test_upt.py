"""UPT's prompts and transformer against the authors' numbers and a slow literal reading of the description."""
import pytest
import torch
import torch.nn.functional as F

from clip import FrozenCLIP, InputError, tokenize
from dassl.config import CfgNode
from tests.parts.five_steps import assert_near, follow, take_parameters
from trainers.parts.classes import Classes
from trainers.upt import UPT

NAMES = ["cat", "yorkshire_terrier", "737-200"]


def options(n=4, position="middle", n_vision=2, depth=3, width=16, joint=False):
    return CfgNode({"N_CTX": n, "CTX_INIT": "", "CLASS_TOKEN_POSITION": position, "N_CTX_VISION": n_vision,
                    "PROMPT_DEPTH_VISION": depth, "PROJECT_DIM": width, "JOINT": joint, "PREC": "fp32"})


def build(clip, **kwargs):
    torch.manual_seed(3)
    model = UPT.build(clip, Classes(NAMES), options(**kwargs))
    with torch.no_grad():
        for parameter in model.prompt_learner.parameters():
            parameter += torch.randn_like(parameter) * 0.3
    return model


def slow_literal_mixing(learned, n_vision, joint):
    """The transformer written out, token by token, with the authors' names of the parameters."""
    def linear(x, name):
        return x @ learned[f"{name}.weight"].T + learned[f"{name}.bias"] if f"{name}.weight" in learned else x

    def norm(x, name):
        mean, std = x.mean(-1, keepdim=True), (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return (x - mean) / std * learned[f"{block}.{name}.weight"] + learned[f"{block}.{name}.bias"]

    block, tokens = "mvlpt_proj.resblocks.0", [learned["vpt_embeddings"]]
    tokens = torch.cat(tokens + ([learned["vpt_embeddings_deep"]] if "vpt_embeddings_deep" in learned else []))
    x = torch.cat([linear(learned["ctx"], "mvlpt_proj_ctx_coop_pre"),
                   linear(tokens.flatten(0, 1), "mvlpt_proj_ctx_vpt_pre")])
    qkv = norm(x, "ln_1") @ learned[f"{block}.attn.in_proj_weight"].T + learned[f"{block}.attn.in_proj_bias"]
    q, k, v = qkv.chunk(3, dim=1)
    seen = torch.stack([((q[i] @ k.T) / q.shape[1] ** 0.5).softmax(-1) @ v if joint else v[i] for i in range(len(x))])
    x = x + linear(seen, f"{block}.attn.out_proj")
    h = linear(norm(x, "ln_2"), f"{block}.mlp.c_fc")
    x = x + linear(h * torch.sigmoid(1.702 * h), f"{block}.mlp.c_proj")
    n = len(learned["ctx"])
    visual = linear(x[n:], "mvlpt_proj_ctx_vpt_post")
    return linear(x[:n], "mvlpt_proj_ctx_coop_post"), visual.unflatten(0, (-1, n_vision))


def slow_literal_logits(clip, learned, images, n_vision, joint):
    ctx, tokens = slow_literal_mixing(learned, n_vision, joint)
    half, texts, features = len(ctx) // 2, [], []
    for name in NAMES:
        ids = tokenize(" ".join(["X"] * len(ctx)) + f" {name.replace('_', ' ')}.")[0]
        words, k = clip.embed_tokens(ids), len(tokenize(name.replace("_", " "))[0].nonzero()) - 2
        name_at = 1 + len(ctx)
        x = torch.cat([words[:1], ctx[:half], words[name_at:name_at + k], ctx[half:], words[name_at + k:]])
        x = x + clip.positional_embedding
        for block in clip.transformer.resblocks:
            x = block(x[None], causal=True)[0]
        texts.append(clip.ln_final(x)[ids.argmax()] @ clip.text_projection)
    for image in images:
        patches = clip.visual.conv1(image[None])[0].flatten(1).T
        x = torch.cat([clip.visual.class_embedding[None], patches]) + clip.visual.positional_embedding
        x = clip.visual.ln_pre(x)
        for i, block in enumerate(clip.visual.transformer.resblocks):
            if i < len(tokens):
                x = torch.cat([x[:1], tokens[i], x[1 + (n_vision if i else 0):]])
            x = block(x[None])[0]
        features.append(clip.visual.ln_post(x[0]) @ clip.visual.proj)
    return clip.scale * F.normalize(torch.stack(features), dim=-1) @ F.normalize(torch.stack(texts), dim=-1).T


@pytest.mark.parametrize("kwargs", [{}, {"joint": True, "depth": 1}, {"width": 64, "joint": True, "n_vision": 3}])
def test_logits_and_gradients_are_those_of_the_description(tiny_clip, kwargs):
    model = build(tiny_clip, **kwargs)
    learned = {k: v.detach().clone().requires_grad_() for k, v in model.prompt_learner.state_dict().items()}
    images = torch.randn(2, 3, 32, 32)
    ours = model(images).logits
    theirs = slow_literal_logits(tiny_clip, learned, images, kwargs.get("n_vision", 2), kwargs.get("joint", False))
    assert_near(ours.detach(), theirs.detach())
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    saved, largest = model.prompt_learner.saved_as, max(float(p.grad.abs().max()) for p in model.parameters()
                                                        if p.grad is not None)
    for name, parameter in model.prompt_learner.named_parameters():
        if (grad := learned[saved[name]].grad) is not None:                 # queries and keys of a token alone: none
            torch.testing.assert_close(parameter.grad, grad, rtol=0, atol=1e-5 * largest, msg=name)


def test_it_takes_the_authors_steps(golden):
    from random_clip import state_dict

    theirs = golden("mvlpt_upt")
    clip = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip")))
    model = UPT.build(clip, Classes(theirs.classnames), options(4, "middle", 4, 3, 32))
    assert UPT.options_of(model.prompt_learner.state_dict()) == {
        "N_CTX": 4, "N_CTX_VISION": 4, "PROMPT_DEPTH_VISION": 3, "PROJECT_DIM": 32}
    take_parameters(model, theirs)
    with torch.no_grad():
        ctx, tokens = model.brick("visual").mixed()
    assert_near(ctx, theirs.tensor("proj_ctx"))
    assert_near(tokens[:1], theirs.tensor("proj_vpt"))
    assert_near(tokens[1:], theirs.tensor("proj_vpt_deep"))
    follow(model, theirs, lambda out, images, labels: F.cross_entropy(out.logits, labels))


def test_their_checkpoint_gives_their_logits(golden):
    from random_clip import state_dict

    theirs = golden("mvlpt_upt")
    clip = FrozenCLIP.from_state_dict(state_dict(theirs.json("clip")))
    model = UPT.build(clip, Classes(theirs.classnames), options(4, "middle", 4, 3, 32))
    layout = theirs.json("registered_models")["prompt_learner"]
    state = {name: torch.zeros(shape) for name, (shape, _) in layout.items()}
    state |= {name: theirs.tensor(f"param/prompt_learner.{name}") for name in layout if "token_" not in name}
    model.prompt_learner.load_state_dict(state)
    with torch.no_grad():
        assert_near(model(theirs.tensor("images")[0]).logits, theirs.tensor("logits"))


@pytest.mark.parametrize("joint", [False, True])
def test_only_joint_attention_lets_visual_tokens_reach_the_words(tiny_clip, joint):
    model = build(tiny_clip, joint=joint)
    with torch.no_grad():
        before = model.text_features()
        model.brick("visual").first.normal_()
        assert torch.equal(model.text_features(), before) != joint


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"depth": 4}, "1 to 3 blocks.*got 4"), ({"depth": 0}, "got 0"), ({"n_vision": 0}, "got 0 and 16"),
    ({"width": 0}, "got 2 and 0"), ({"n": 0}, "at least 1 context word")])
def test_what_the_towers_do_not_have_is_refused(tiny_clip, kwargs, message):
    with pytest.raises(InputError, match=message):
        UPT.build(tiny_clip, Classes(NAMES), options(**kwargs))
