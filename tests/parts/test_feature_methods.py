"""Methods on kept features follow the authors' runs (origin: tests/golden/README.md), or their formulas written out."""
import pytest
import torch
import torch.nn.functional as F

from clip import InputError, encode_texts
from clip.templates import fill
from dassl.config import CfgNode
from trainers.clap import ZSLP
from trainers.parts.channels import ChannelCacheHead, ResidualCacheHead, refined_channels
from trainers.parts.classes import Classes
from trainers.parts.constraint import Constraint
from trainers.parts.discriminant import discriminant
from trainers.parts.feature_heads import AdapterHead, BlendHead, ProjectionHead, PrototypeHead
from trainers.parts.heads import ResidualHead
from trainers.parts.lp_plus_plus import descend, start_of
from trainers.parts.prompted_model import PromptedModel
from trainers.parts.prototypes import mean_of_each
from trainers.taskres import TaskRes


def assert_near(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=tolerance * float(theirs.abs().max()))


def follow(model, golden, names, optimiser, loss_of=None, images="images"):
    """Logits, loss and gradients of the first batch, five steps, and the logits after them; `names` by parameter."""
    parameters = dict(model.prompt_learner.named_parameters())
    with torch.no_grad():
        for name, theirs in names.items():
            parameters[name].copy_(golden.tensor(f"param/{theirs}"))
    features = [model.clip.encode_image(batch.float(), unit_norm=model.unit_norm) for batch in golden.tensor(images)]
    assert_near(model.compare(features[0]).logits.detach(), golden.tensor("logits"))
    for step, (batch, labels) in enumerate(zip(features, golden.tensor("labels"), strict=True)):
        out = model.compare(batch)
        loss = F.cross_entropy(out.logits, labels)
        assert loss.item() == pytest.approx(golden.data["losses"][step], rel=1e-5 if step == 0 else 5e-5)
        optimiser.zero_grad()
        loss.backward()
        for name, theirs in names.items() if step == 0 else ():
            assert_near(parameters[name].grad, golden.tensor(f"grad/{theirs}"))
        optimiser.step()
        for name, theirs in names.items() if step in (0, 4) else ():
            assert_near(parameters[name].detach(), golden.tensor(f"after{step + 1}/{theirs}"), 5e-5)
    assert_near(model.compare(features[0]).logits.detach(), golden.tensor("logits_after5"), 5e-5)


def test_an_adapter_follows_the_authors(tiny_clip, golden):
    theirs = golden("clip_adapter_randinit")
    text = encode_texts(tiny_clip, fill("a photo of a {}, a type of pet.", theirs.classnames))
    model = PromptedModel(tiny_clip, text=text, head=AdapterHead(tiny_clip.embed_dim))
    optim = theirs.json("optim")
    sgd = torch.optim.SGD(model.prompt_learner.parameters(), optim["lr"], optim["momentum"],
                          weight_decay=optim["weight_decay"])
    follow(model, theirs, {"head.down": "adapter.fc.0.weight", "head.up": "adapter.fc.2.weight"}, sgd)


def test_a_residual_follows_the_authors(tiny_clip, golden):
    theirs = golden("taskres_randinit")
    texts = [theirs.json("templates")[0].format(name) for name in theirs.classnames]            # "_" stays in them
    base = encode_texts(tiny_clip, texts, unit_norm=False)
    assert_near(base, theirs.tensor("base_text_features"))
    model = PromptedModel(tiny_clip, head=ResidualHead(base, 0.5))
    optim = theirs.json("optim")
    adam = torch.optim.Adam(model.prompt_learner.parameters(), optim["lr"], optim["betas"], optim["eps"],
                            optim["weight_decay"])
    follow(model, theirs, {"head.residual": "prompt_learner.text_feature_residuals"}, adam)


@pytest.mark.parametrize(("method", "case"), [(TaskRes, "taskres_randinit"), (ZSLP, "clap_l2")])
def test_base_texts_are_the_authors_with_the_names_underscores(method, case, tiny_clip, golden):
    theirs = golden(case)
    template = theirs.json("templates")[0] if "templates" in theirs.data else theirs.data["template"].item()
    assert any("_" in name for name in theirs.classnames)
    found = []
    for underscores in (True, False):
        options = CfgNode({"TEMPLATES": (), "ALPHA": 0.5, "UNDERSCORES": underscores})
        head = method.build(tiny_clip, Classes(theirs.classnames, template), options).head
        found.append(head.base if method is TaskRes else head.start)
    assert_near(found[0], theirs.tensor("base_text_features"))
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_constrained_prototypes_follow_the_authors(tiny_clip, golden):
    theirs = golden("clap_l2")
    texts = [theirs.data["template"].item().format(name) for name in theirs.classnames]
    base = encode_texts(tiny_clip, texts, unit_norm=False)
    assert_near(base, theirs.tensor("base_text_features"))
    features, labels = F.normalize(theirs.tensor("features"), dim=1), theirs.tensor("labels")
    head = PrototypeHead(theirs.tensor("base_text_features"))
    zero_shot, _ = head(features, None, tiny_clip)
    assert_near(zero_shot.detach(), theirs.tensor("logits_zs"))
    constraint = Constraint(zero_shot.detach(), labels)
    assert_near(constraint.strength, theirs.tensor("alpha0"))
    sgd = torch.optim.SGD(head.parameters(), 0.1, momentum=0.9)
    for step, rows in enumerate(theirs.tensor("perm")):
        logits, _ = head(features[rows], None, tiny_clip)
        ce = F.cross_entropy(logits, labels[rows])
        loss = ce + constraint(head.prototypes, head.start)
        assert (ce.item(), loss.item()) == pytest.approx((theirs.data["ce_losses"][step], theirs.data["losses"][step]),
                                                         rel=5e-5)
        sgd.zero_grad()
        loss.backward()
        if step == 0:
            assert_near(logits.detach(), theirs.tensor("logits"))
            assert_near(head.prototypes.grad, theirs.tensor("grad/prototypes"))
        sgd.step()
        if step in (0, 4):
            assert_near(head.prototypes.detach(), theirs.tensor(f"after{step + 1}/prototypes"), 5e-5)
    test = tiny_clip.encode_image(theirs.tensor("test_images").float())
    assert_near(head(test, None, tiny_clip)[0].detach(), theirs.tensor("test_logits_after5"), 5e-5)


def test_the_strength_of_a_constraint_can_be_even_and_rises_where_a_class_moved():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    mean = [logits.softmax(1)[labels == c, c].mean() for c in range(3)]
    plain, of = torch.stack(mean), lambda strength: Constraint(logits, labels, strength).strength
    torch.testing.assert_close(of("zero-shot"), plain)
    torch.testing.assert_close(of("corrected"), 3 * plain / plain.sum())
    torch.testing.assert_close(of("constant"), torch.full((3,), plain.mean().item()))
    assert of("balanced").tolist() == [1, 1, 1]
    start = torch.randn(3, 4)
    moved = start + torch.tensor([[0.0], [1.0], [2.0]])
    constraint = Constraint(logits, labels)
    constraint.rise(moved, start)                                       # the penalty begins at 0
    torch.testing.assert_close(constraint.strength, plain)
    constraint.rise(moved, start)
    torch.testing.assert_close(constraint.strength, plain + torch.tensor([0.0, 4.0 ** 2, 16.0 ** 2]))
    away = 1 - (moved * start).sum(1) / moved.norm(dim=1) / start.norm(dim=1)
    torch.testing.assert_close(Constraint(logits, labels, "balanced", "cosine")(moved, start), away.mean())
    with pytest.raises(InputError, match="'even'"):
        Constraint(logits, labels, "even")


def test_lp_plus_plus_follows_the_authors(tiny_clip, golden):
    theirs = golden("lpp_features16")
    features, labels, text = (theirs.tensor(name) for name in ("train_features", "train_labels", "text_weights"))
    text, start = text.t().contiguous(), start_of(features, labels, text.t())
    assert_near(start.weight, theirs.tensor("centroids_sum"))
    assert (start.rate, start.text_rate, start.text_weight) == pytest.approx(
        tuple(float(theirs.data[name]) for name in ("lr_w", "lr_alpha", "init_alpha")), rel=1e-5)
    tiny_clip_of_16 = type("Clip", (), {"embed_dim": 16})
    head = BlendHead(tiny_clip_of_16, 5, 1.0)
    head.bias.data.copy_(theirs.tensor("bias_init"))
    steps = descend(head, start, features, labels, text, None, 30)
    for step, loss in enumerate(steps):
        assert loss == pytest.approx(theirs.data["losses"][step], rel=5e-5, abs=1e-6)
        if step + 1 in (1, 5, 10, 11, 20, 30):
            for ours, name in ((head.weight, "weight"), (head.bias, "bias"), (head.text_weight, "alpha")):
                if name != "alpha" or (step + 1) % 10:          # theirs was noted before it stepped
                    assert_near(ours.detach(), theirs.tensor(f"after{step + 1}/{name}"), 5e-5)
    assert_near(head(theirs.tensor("test_features"), text, None).detach(), theirs.tensor("test_logits_final"), 5e-5)


def test_a_discriminant_follows_the_authors(golden):
    theirs = golden("gda")
    features = F.normalize(theirs.tensor("train_raw"), dim=-1)                                  # (2, 30, 16)
    labels, text = theirs.tensor("train_labels"), theirs.tensor("clip_weights").t()
    weight, bias = discriminant(features.flatten(0, 1), labels.repeat(2), 6)
    assert_near(weight, theirs.tensor("W").t())
    assert_near(bias.double(), theirs.tensor("b"))
    val, accuracy = theirs.tensor("val_features"), theirs.data["val_acc"]
    for row, alpha in enumerate((1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0)):
        logits = 100 * val @ text.t() + alpha * (val @ weight.t() + bias)
        assert_near(logits, theirs.tensor("val_logits")[row])
        assert 100 * (logits.argmax(1) == theirs.tensor("val_labels")).float().mean().item() == pytest.approx(
            accuracy[row], abs=1e-4)


def test_squared_distances_to_means_follow_the_authors(golden):
    theirs = golden("protonet")
    support, query = (theirs.tensor(f"feat_{which}").requires_grad_() for which in ("support", "query"))
    labels = torch.arange(4).repeat_interleave(3)
    means = mean_of_each(support.flatten(0, 1), labels, 4)
    head = PrototypeHead(means.detach(), "euclidean")
    logits = -(query.flatten(0, 1)[:, None] - means).square().sum(-1)
    torch.testing.assert_close(head(query.flatten(0, 1), None, None)[0], logits)
    loss = F.cross_entropy(logits, torch.arange(4).repeat_interleave(5))
    assert loss.item() == pytest.approx(float(theirs.data["feat_loss"]), rel=1e-5)
    loss.backward()
    assert_near(query.grad, theirs.tensor("feat_grad_query"))
    assert_near(support.grad, theirs.tensor("feat_grad_support"))
    right = (logits.argmax(1) == torch.arange(4).repeat_interleave(5)).float().mean().item()
    assert right == pytest.approx(float(theirs.data["feat_acc"]))


def test_a_projection_of_its_own_is_the_towers_at_first_and_answers_by_itself(tiny_clip):
    torch.manual_seed(0)
    images, text = torch.randn(4, 3, 32, 32), F.normalize(torch.randn(3, 32), dim=1)
    model = PromptedModel(tiny_clip, text=text, head=ProjectionHead(tiny_clip, 100.0))
    torch.testing.assert_close(model(images).logits, 100 * tiny_clip.encode_image(images) @ text.T)
    with torch.no_grad():
        model.head.weight.mul_(torch.rand(32) + 0.5)
    wide = tiny_clip.encode_image(images, joint=False, unit_norm=False)
    unit = (moved := wide @ model.head.weight) / moved.norm(dim=1, keepdim=True)
    out = model(images)
    torch.testing.assert_close(out.logits, 100 * unit @ text.T)
    torch.testing.assert_close(out.image_features, unit)
    assert not torch.equal(model.head.weight, tiny_clip.visual.proj)


def test_inner_products_leave_the_prototypes_as_they_are(tiny_clip):
    features, start = F.normalize(torch.randn(4, 32), dim=1), 3 * torch.randn(5, 32)
    logits, found = PrototypeHead(start, "inner", 100.0)(features, None, tiny_clip)
    torch.testing.assert_close(logits, 100 * features @ start.T)
    torch.testing.assert_close(found["text_features"].norm(dim=1), torch.ones(5))


def test_what_does_not_fit_is_refused(tiny_clip):
    one_class = torch.zeros(3, dtype=torch.int64)
    for compute in (lambda: start_of(torch.randn(3, 8), one_class, torch.randn(2, 8)),
                    lambda: discriminant(torch.randn(3, 8), one_class, 2),
                    lambda: mean_of_each(torch.randn(3, 8), one_class, 2)):
        with pytest.raises(InputError, match=r"classes \[1\] have none \(1 of 2\)"):
            compute()
    with pytest.raises(InputError, match="two samples, got 1"):
        discriminant(torch.randn(1, 8), one_class[:1], 1)
    with pytest.raises(InputError, match="got 'manhattan'"):
        PrototypeHead(torch.zeros(2, 8), "manhattan")
    for ratio, reduction in ((1.5, 4), (0.2, 99)):
        with pytest.raises(InputError, match=str(ratio)):
            AdapterHead(8, ratio, reduction)


def literal_channels(text, keys, labels, count, weight):
    """As the paper's code does it: pairs of samples of different classes, one by one."""
    samples = [torch.stack([text[c], *(keys[labels == c])]) for c in range(len(text))]
    total, pairs = torch.zeros(text.shape[1]), 0
    for i, one in enumerate(samples):
        for j, other in enumerate(samples):
            for a in one if i != j else ():
                for b in other:
                    total, pairs = total + a * b, pairs + 1
    return torch.topk(-weight * total / pairs + (1 - weight) * torch.var(text, dim=0), count).indices


def test_a_cache_of_refined_channels_is_the_papers_formula(tiny_clip):
    torch.manual_seed(0)
    text, keys, images = (F.normalize(torch.randn(n, 32), dim=1) for n in (4, 9, 6))
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 3])
    head = ChannelCacheHead(tiny_clip, 4, 12, alpha=2.0, beta=3.0)
    head.fill_refined(keys, labels, text, 0.3)
    channels = literal_channels(text, keys, labels, 12, 0.3)
    assert torch.equal(head.channels, channels)
    few_text, few_keys, few_images = ((f := x[:, channels]) / f.norm(dim=1, keepdim=True) for x in (text, keys, images))
    one_hot = F.one_hot(labels, 4).float()
    said = (few_keys @ few_text.T).softmax(1)
    bits = (one_hot * torch.log2((one_hot + 1e-6) / (said + 1e-6))).sum(1)
    for gamma in (0.0, 0.5, 0.1):                       # the last call counts
        head.trust(gamma)
        votes = torch.exp(-3 * (1 - few_images @ few_keys.T)) @ (one_hot * torch.exp(gamma * bits)[:, None])
        torch.testing.assert_close(head(images, text, tiny_clip), 100 * images @ text.T + 2 * votes)
    for classes, count in ((1, 12), (4, 33)):
        with pytest.raises(InputError, match=f"got {count} of {classes}"):
            refined_channels(text[:classes], keys, labels.clamp(max=classes - 1), count, 0.5)


def test_a_cache_that_moves_with_its_texts_is_the_papers_formula(tiny_clip):
    """Literally, one class after the other: logits, and five steps of what it learns."""
    torch.manual_seed(0)
    text, keys, images = (F.normalize(torch.randn(n, 32), dim=1) for n in (4, 8, 6))
    labels, targets = torch.arange(8) // 2, torch.tensor([0, 1, 2, 3, 0, 1])
    head = ResidualCacheHead(tiny_clip, 4, 20, alpha=2.0, beta=3.0)
    head.fill_moving(keys, labels, text, 0.2)
    channels = literal_channels(text, keys, labels, 20, 0.2)
    assert torch.equal(head.channels, channels)
    assert {id(p) for p in head.learned()} == {id(head.residual), id(head.weights)}
    residual, weights = torch.zeros(4, 20, requires_grad=True), torch.ones(8, 1, requires_grad=True)

    def literal():
        moved_text, moved_keys = text.clone(), keys.clone()
        moved_text[:, channels] = moved_text[:, channels] + residual
        moved_keys[:, channels] = moved_keys[:, channels] + residual.repeat_interleave(2, dim=0)
        votes = torch.exp(-(3 - 3 * (images @ moved_keys.T))) @ (F.one_hot(labels, 4) * weights)
        return 100 * images @ moved_text.T + 2 * votes

    theirs, ours = (torch.optim.AdamW(learned, 0.01, eps=1e-3, weight_decay=0.1)
                    for learned in ([residual, weights], head.learned()))
    for _ in range(5):
        expected, logits = literal(), head(images, text, tiny_clip)
        torch.testing.assert_close(logits, expected)
        for found, optimiser in ((expected, theirs), (logits, ours)):
            optimiser.zero_grad()
            F.cross_entropy(found, targets).backward()
        torch.testing.assert_close(head.residual.grad, residual.grad)
        torch.testing.assert_close(head.weights.grad, weights.grad[:, 0])
        theirs.step()
        ours.step()
    assert residual.abs().max() > 0.01 and not torch.equal(weights, torch.ones(8, 1))
