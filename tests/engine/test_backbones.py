"""Residual networks by Dassl's names: torchvision's features and keys, and styles mixed where the name says."""
import pytest
import torch
from torchvision import models

from dassl.config import get_cfg_default
from dassl.engine.trainer import SimpleNet
from dassl.modeling import BACKBONE_REGISTRY, build_backbone
from dassl.modeling.ops import EFDMix, MixStyle, run_with_mixstyle, run_without_mixstyle
from dassl.utils import UserError


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("resnet50", 2048)])
def test_features_are_torchvisions_before_the_classifier(name, width):
    ours, theirs = build_backbone(name, verbose=False, pretrained=False), getattr(models, name)().eval()
    keys = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert not keys.missing_keys and set(keys.unexpected_keys) == {"fc.weight", "fc.bias"}
    theirs.fc, images = torch.nn.Identity(), torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs(images))
    assert ours.out_features == width


@pytest.mark.parametrize(("name", "mixer", "times"), [
    ("resnet18_ms_l123", MixStyle, 3), ("resnet18_ms_l1", MixStyle, 1),
    ("resnet18_efdmix_l12", EFDMix, 2)])
def test_styles_are_mixed_after_the_stages_of_the_name_and_only_in_training(name, mixer, times, monkeypatch):
    network, images, seen = build_backbone(name, pretrained=False), torch.randn(4, 3, 32, 32), []
    monkeypatch.setattr(mixer, "mixed", lambda self, x, share, partners: seen.append(x.shape[1]) or x)
    network.mixstyle.p = 1.0
    network.train()(images)
    assert seen == [64, 128, 256][:times]
    network.eval()(images)
    assert len(seen) == times


def test_a_network_runs_with_and_without_its_styles_mixed(monkeypatch):
    network, images = build_backbone("resnet18_ms_l12", pretrained=False).train(), torch.randn(4, 3, 32, 32)
    calls = []
    monkeypatch.setattr(MixStyle, "mixed", lambda self, x, share, partners: calls.append(self.mix) or x)
    network.mixstyle.p = 1.0
    with run_without_mixstyle(network):
        network(images)
    assert not calls
    with run_with_mixstyle(network, mix="crossdomain"):
        network(images)
    assert calls == ["crossdomain"] * 2


def test_every_name_of_dassl_is_there_and_can_be_replaced():
    names = BACKBONE_REGISTRY.registered_names()
    assert {"resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet50_ms_l123", "resnet101_efdmix_l1"} \
        <= set(names) and len([n for n in names if n.startswith("resnet")]) == 23
    original = BACKBONE_REGISTRY.get("resnet34")

    def resnet34(pretrained=True, **kwargs):
        return "mine"

    try:
        BACKBONE_REGISTRY.register(force=True)(resnet34)
        assert build_backbone("resnet34", pretrained=True) == "mine"
    finally:
        BACKBONE_REGISTRY.register(original, force=True)


def test_simple_net_joins_backbone_head_and_classifier():
    cfg = get_cfg_default()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAINED, cfg.MODEL.HEAD.NAME = "resnet18", False, "mlp"
    cfg.MODEL.HEAD.HIDDEN_LAYERS = (7,)
    net = SimpleNet(cfg, cfg.MODEL, 5)
    scores, features = net(torch.randn(2, 3, 32, 32), return_feature=True)
    assert net.fdim == 7 and scores.shape == (2, 5) and features.shape == (2, 7)


def test_weights_that_cannot_be_fetched_are_told_with_the_way_out(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(UserError, match="resnet18 cannot be fetched.*INIT_WEIGHTS"):
        build_backbone("resnet18", pretrained=True)
