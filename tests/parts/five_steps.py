"""Five training steps beside those of the authors' own code, from a file of reference numbers."""
import pytest
import torch


def assert_near(ours, theirs, tolerance=1e-5):
    """`tolerance` is relative to max|.| of theirs."""
    torch.testing.assert_close(ours, theirs.reshape(ours.shape), rtol=0, atol=tolerance * float(theirs.abs().max()))


def names_of(model, theirs):
    """Our parameter -> the authors' name in the file, or the names of its rows."""
    def found(name):
        whole = f"prompt_learner.{name}"
        return whole if f"param/{whole}" in theirs.data else name

    learned = model.prompt_learner
    names = {own: learned.saved_as.get(own, own) for own, _ in learned.named_parameters()}
    return {own: found(saved) if isinstance(saved, str) else [*map(found, saved)] for own, saved in names.items()}


def take_parameters(model, theirs, names=None):
    """Start from the authors' values."""
    names = names or names_of(model, theirs)
    with torch.no_grad():
        for own, parameter in model.prompt_learner.named_parameters():
            parameter.copy_(theirs.value("param", names[own]).reshape(parameter.shape))
    return names


def optimiser_of(parameters, optim):
    if optim["name"] == "sgd":
        return torch.optim.SGD(parameters, optim["lr"], optim["momentum"], weight_decay=optim["weight_decay"])
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optim["name"]]
    return kind(parameters, optim["lr"], optim["betas"], optim["eps"], optim["weight_decay"])


def follow(model, theirs, loss, names=None, logits="logits", optimiser=None):
    """Check logits, losses, first gradients and parameters of five steps.

    Args:
        loss: (output, images, labels) -> the sum that is minimised.
        names: see `names_of`.
        logits: name of what an evaluation gives; the one after five steps is "<...>_after5".
        optimiser: made of the model's learned parameters by name; None: one of the file's "optim".
    """
    names = take_parameters(model, theirs, names)
    learned = dict(model.prompt_learner.named_parameters())
    assert names.keys() == learned.keys()
    images, labels = theirs.tensor("images"), theirs.tensor("labels")
    optim = optimiser(learned) if optimiser else optimiser_of(learned.values(), theirs.json("optim"))
    with torch.no_grad():
        assert_near(model.eval()(images[0]).logits, theirs.tensor(logits))
    model.train()
    for step in range(5):
        value = loss(model(images[step]), images[step], labels[step])
        assert value.item() == pytest.approx(theirs.data["losses"][step], rel=1e-5)
        optim.zero_grad()
        value.backward()
        for own, name in names.items() if step == 0 else ():
            assert_near(learned[own].grad, theirs.value("grad", name))
        optim.step()
        for own, name in names.items() if step in (0, 4) else ():
            tolerance = 1e-5 if step == 0 and isinstance(optim, torch.optim.SGD) else 5e-5
            assert_near(learned[own].detach(), theirs.value(f"after{step + 1}", name), tolerance)
    with torch.no_grad():
        assert_near(model.eval()(images[0]).logits, theirs.tensor(logits.replace("logits", "logits_after5")), 5e-5)
