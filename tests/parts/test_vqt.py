"""VQT's queries and head against the authors' numbers, on the plain ViT that they ran."""
import pytest
import torch
import torch.nn.functional as F
from vit_weights import draw

from clip import FrozenCLIP, InputError
from clip.towers import TowerShape
from dassl.config import CfgNode
from dassl.engine import build_trainer
from dassl.utils import UserError
from tests.parts.five_steps import assert_near, follow
from trainers.parts.classes import Classes
from trainers.parts.query_reader import QueryHead, QueryReader
from trainers.parts.visual_prompt import VisualPrompt
from trainers.vqt import VQT


def options(n=2, dropout=0.0):
    return CfgNode({"N": n, "DROPOUT": dropout})


@pytest.fixture
def plain_vit(golden, tiny_clip_weights):
    """The authors' ViT as the image tower: no norm before the blocks, biased patches, GELU, norms with eps 1e-6."""
    w = {name.removeprefix("transformer."): torch.tensor(value)
         for name, value in draw(golden("vqt").json("weights_order")).items()}
    position = w["embeddings.position_embeddings"][0]
    visual = {"class_embedding": w["embeddings.cls_token"].flatten(), "positional_embedding": position,
              "conv1.weight": w["embeddings.patch_embeddings.weight"],
              "conv1.bias": w["embeddings.patch_embeddings.bias"],
              "ln_post.weight": w["encoder.encoder_norm.weight"], "ln_post.bias": w["encoder.encoder_norm.bias"],
              "proj": torch.zeros(position.shape[1], 32)}
    for i in range(3):
        old, new = f"encoder.layer.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            visual[f"{new}attn.in_proj_{kind}"] = torch.cat([w[f"{old}attn.{p}.{kind}"]
                                                             for p in ("query", "key", "value")])
            for ours, theirs in (("ln_1", "attention_norm"), ("ln_2", "ffn_norm"), ("attn.out_proj", "attn.out"),
                                 ("mlp.c_fc", "ffn.fc1"), ("mlp.c_proj", "ffn.fc2")):
                visual[f"{new}{ours}.{kind}"] = w[f"{old}{theirs}.{kind}"]
    text = {k: v for k, v in tiny_clip_weights.items() if not k.startswith("visual.")}
    shape = TowerShape(2, 1, "gelu")
    clip = FrozenCLIP.from_state_dict({**text, **{f"visual.{k}": v for k, v in visual.items()}}, shape)
    for module in clip.visual.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    return clip


def test_vqt_takes_the_authors_steps(golden, plain_vit):
    theirs = golden("vqt")
    model = VQT.build(plain_vit, Classes([str(i) for i in range(10)]), options())
    names = {"visual.tokens": "enc.transformer.encoder.query_prompt_embeddings",
             "head.weight": "head.last_layer.weight", "head.bias": "head.last_layer.bias"}
    theirs.data = {**{k: theirs.data[k] for k in theirs.data.files}, "images": theirs.data["images"].astype("float32")}
    follow(model, theirs, lambda out, images, labels: F.cross_entropy(out.logits, labels), names,
           optimiser=lambda learned: torch.optim.Adam(learned.values(), 0.001))
    with torch.no_grad():
        model.brick("visual").tokens.copy_(theirs.value("param", names["visual.tokens"]))
        plain_vit.encode_image(theirs.tensor("images")[0], model.brick("visual"), joint=False)
        assert_near(model.brick("visual").taken(), theirs.tensor("query_outputs"))


def test_queries_change_nothing_that_the_tower_says(tiny_clip):
    images = torch.randn(2, 3, 32, 32)
    queries = QueryReader(tiny_clip, 3)
    assert torch.equal(tiny_clip.encode_image(images, queries), tiny_clip.encode_image(images))
    assert queries.taken().shape == (2, 3, 3, 64)


def test_no_query_and_too_much_dropout_are_refused(tiny_clip):
    for brick in (VisualPrompt, QueryReader):
        with pytest.raises(InputError, match="Dropout must be .* got 1.5"):
            brick(tiny_clip, 2, dropout=1.5)
    with pytest.raises(InputError, match="at least 1 query, got 0"):
        VQT.build(tiny_clip, Classes(["cat"]), options(0))


def test_selection_keeps_the_features_with_the_largest_weights_and_learns_from_them_alone(tiny_clip):
    head = QueryHead(QueryReader(tiny_clip, 1), 3, keep=0.7)
    norms = head.weight.detach().square().sum(0).sqrt()
    torch.testing.assert_close(head.lasso(), norms.sum())
    head.select()
    kept = norms.argsort(descending=True)[:int(0.7 * len(norms))]
    assert head.kept.nonzero().flatten().tolist() == sorted(kept.tolist())
    images = torch.rand(2, tiny_clip.vision_width)
    head._queries[0]._read = [torch.rand(2, 1, tiny_clip.vision_width) for _ in range(tiny_clip.depth)]
    head(images, None, tiny_clip).sum().backward()
    assert not head.weight.grad[:, ~head.kept].any() and head.weight.grad[:, head.kept].any()


def test_a_run_that_selects_says_so_in_its_checkpoint_and_predicts_from_it(make_cfg, tmp_path):
    opts = "TRAINER.VQT.KEEP", 0.7, "OPTIM.MAX_EPOCH", 2
    trainer = build_trainer(make_cfg("VQT", *opts, output=tmp_path / "run"))
    trainer.train()
    head = trainer.model.head
    assert head.kept.float().mean().item() == pytest.approx(0.7, abs=0.01) and not head.ranking
    weights = dict(trainer.model.prompt_learner.state_dict())
    assert type(trainer).options_of(weights)["KEEP"] == pytest.approx(0.7, abs=0.01)
    again = build_trainer(make_cfg("VQT", *opts, output=tmp_path / "again"))
    again.load_model(str(tmp_path / "run"))
    assert torch.equal(again.model.head.kept, head.kept)


@pytest.mark.parametrize("keep", [0, 1.2])
def test_a_share_of_features_outside_0_to_1_is_refused(make_cfg, keep):
    with pytest.raises(UserError, match=f"got {keep}"):
        build_trainer(make_cfg("VQT", "TRAINER.VQT.KEEP", float(keep)))


@pytest.mark.parametrize("read", ["mean", "sum"])
@pytest.mark.parametrize("normalise", [False, True])
def test_a_blocks_queries_can_be_averaged_or_summed(tiny_clip, read, normalise):
    queries = QueryReader(tiny_clip, 2)
    head = QueryHead(queries, 3, read=read, normalise=normalise)
    tokens = torch.randn(4, tiny_clip.depth, 2, tiny_clip.vision_width)
    image = torch.randn(4, tiny_clip.vision_width)
    if read == "sum":
        with torch.no_grad():
            head.combine.uniform_(0.5, 2)
    pieces = [image]
    for block in range(tiny_clip.depth):
        weights = head.combine[block] if read == "sum" else torch.full((2,), 0.5)
        pieces.append(weights[0] * tokens[:, block, 0] + weights[1] * tokens[:, block, 1])
    if normalise:
        pieces = [piece / piece.norm(dim=1, keepdim=True) for piece in pieces]
    queries._read = list(tokens.unbind(1))
    torch.testing.assert_close(head(image, None, tiny_clip), torch.cat(pieces, dim=1) @ head.weight.T + head.bias)


def test_another_way_to_read_is_refused(tiny_clip):
    with pytest.raises(InputError, match="'max'"):
        QueryHead(QueryReader(tiny_clip, 1), 3, read="max")
