"""Small functions of dassl.utils that public code calls."""
import pytest
import torch
from torch import nn

from dassl.data.transforms.autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from dassl.utils import (
    UserError,
    cache_dir,
    check_availability,
    collect_env_info,
    count_num_param,
    download_url,
    init_network_weights,
    listdir_nohidden,
    tolist_if_not,
)
from dassl.utils.torchtools import set_bn_to_eval


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(3, 200, 5), nn.BatchNorm2d(200), nn.ReLU(), nn.InstanceNorm2d(200, affine=True),
                         nn.InstanceNorm2d(200), nn.Flatten(), nn.Linear(200, 300, bias=False))


@pytest.mark.parametrize(("kind", "deviation"), [("normal", 0.02), ("xavier", 0.02 * (2 / 500) ** 0.5),
                                                 ("kaiming", (2 / 200) ** 0.5), ("orthogonal", 0.02 * 300 ** -0.5)])
def test_weights_are_drawn_as_asked_and_the_rest_becomes_neutral(net, kind, deviation):
    for p in net.parameters():
        nn.init.constant_(p, 9)
    init_network_weights(net, kind)
    assert net[6].weight.std().item() == pytest.approx(deviation, rel=0.05) and abs(net[6].weight.mean()) < 0.01
    assert not net[0].bias.any() and net[0].weight.std() > 0
    for norm in (net[1], net[3]):
        assert (norm.weight == 1).all() and not norm.bias.any()
    with pytest.raises(UserError, match="'uniform'"):
        init_network_weights(net, "uniform")


def test_batch_normalisations_alone_keep_their_statistics(net):
    net.train().apply(set_bn_to_eval)
    assert [m.training for m in net] == [True, False, True, True, True, True, True]


def test_parameters_are_counted_of_a_model_or_of_groups(net):
    expected = 3 * 25 * 200 + 200 + 400 + 400 + 200 * 300
    assert count_num_param(net) == expected == count_num_param(params=[{"params": list(net.parameters())}])


def test_single_things_become_lists_and_the_environment_is_told():
    assert tolist_if_not("a") == ["a"] and tolist_if_not(["a"]) == ["a"]
    assert "PyTorch" in collect_env_info()


def test_folders_are_listed_without_hidden_files_and_the_cache_is_not_made_unasked(tmp_path, monkeypatch):
    for name in ("b", ".hidden", "a"):
        (tmp_path / name).touch()
    assert listdir_nohidden(str(tmp_path), sort=True) == ["a", "b"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "dassl" and not cache_dir().exists()


def test_a_name_that_is_not_available_gets_the_nearest():
    check_availability("coop", ["coop", "vpt"])
    with pytest.raises(UserError, match="'cop' is not one of coop, vpt. Did you mean coop"):
        check_availability("cop", ["coop", "vpt"])


def test_a_download_arrives_whole_or_not_at_all(tmp_path):
    source, target = tmp_path / "weights.bin", tmp_path / "new" / "copy.bin"
    source.write_bytes(b"12345")
    download_url(source.as_uri(), str(target))
    assert target.read_bytes() == b"12345"
    with pytest.raises(UserError, match="cannot be fetched.*by hand.*b.bin"):
        download_url((tmp_path / "absent").as_uri(), str(tmp_path / "new" / "b.bin"))
    assert [p.name for p in target.parent.iterdir()] == ["copy.bin"]


@pytest.mark.parametrize("policy", [ImageNetPolicy, CIFAR10Policy, SVHNPolicy])
def test_policies_keep_the_size_and_follow_torchs_stream(policy):
    from PIL import Image

    image, transform = Image.effect_noise((20, 12), 50).convert("RGB"), policy()
    results = []
    for _ in range(2):
        torch.manual_seed(4)
        results.append([transform(image) for _ in range(8)])
    assert all(a.size == (20, 12) and a.tobytes() == b.tobytes() for a, b in zip(*results, strict=True))
    assert len({a.tobytes() for a in results[0]}) > 3
