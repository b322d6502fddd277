"""Image towers that others made robust, as backbones: files of a tower alone, runs of ours, and names of the hub's."""
import pytest
import torch

from clip import InputError, WeightsNotFound, encode_texts, load_clip
from clip.backbones import HubName, TunedTower, image_facts, resolve
from clip.state_dicts import image_tower
from dassl.engine import build_trainer

FORMS = {
    "the tower's own names (FARE)": lambda tower: tower,
    "beside other things (TeCoA)": lambda tower: {"epoch": 3, "best_acc1": torch.ones(()),
                                                  "vision_encoder_state_dict": tower},
    "with a prefix": lambda tower: {f"visual.{name}": value for name, value in tower.items()},
    "as a run of ours saves it": lambda tower: {"state_dict": {
        f"tower.visual/{name.replace('.', '/')}": value for name, value in tower.items()}}}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_an_image_tower_takes_the_place_of_the_bases_own(form, tmp_path):
    base, path = load_clip("tiny"), tmp_path / "tower.pt"
    tower = {name: value + 0.01 for name, value in base.visual.state_dict().items()}
    torch.save(FORMS[form](tower), path)
    found = load_clip(f"tiny:{path}")
    assert all(torch.equal(value, tower[name]) for name, value in found.visual.state_dict().items())
    assert torch.equal(encode_texts(found, ["a cat"]), encode_texts(base, ["a cat"]))
    assert found.name == f"tiny:{path}" and found.sha256 != base.sha256 and len(found.sha256) == 64
    assert isinstance(resolve(f"tiny:{path}"), TunedTower) and image_facts(f"tiny:{path}") == image_facts("tiny")


def test_the_tower_that_a_run_learned_is_a_backbone(make_cfg, tmp_path):
    trainer = build_trainer(make_cfg("FARE", "MODEL.BACKBONE.NAME", "tiny", "OPTIM.MAX_EPOCH", 1, "OPTIM.LR", 0.01,
                                     "TRAINER.FARE.STEPS", 1, "TEST.NO_TEST", True, output=tmp_path))
    trainer.train()
    name = f"tiny:{tmp_path}/prompt_learner/model.pth.tar-1"
    found, images = load_clip(name), torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(found.encode_image(images), trainer.model.clip.encode_image(images))
    assert not torch.allclose(found.encode_image(images), load_clip("tiny").encode_image(images))
    assert build_trainer(make_cfg("APT", "MODEL.BACKBONE.NAME", name)).model.clip.sha256 == found.sha256


def test_an_image_tower_alone_is_told_from_a_whole_clip(tiny_clip_weights):
    whole = tiny_clip_weights
    tower = {name: value for name, value in whole.items() if name.startswith("visual.")}
    assert image_tower(whole) is None and image_tower({"ctx": torch.ones(4, 8)}) is None
    assert image_tower(tower).keys() == {name.removeprefix("visual.") for name in tower}


def test_what_is_no_such_tower_is_refused_with_its_name(tmp_path, tiny_clip_weights):
    torch.save(tiny_clip_weights, tmp_path / "whole.pt")
    torch.save({k.removeprefix("visual."): v for k, v in tiny_clip_weights.items() if k.startswith("visual.")},
               tmp_path / "other.pt")
    for name, found in ((f"tiny:{tmp_path}/whole.pt", "whole.pt"), (f"tiny:{tmp_path}/other.pt", "does not fit tiny"),
                        (f"tiny:{tmp_path}/none.pt", "none.pt"),
                        (f"ViT-B-16-SigLIP:{tmp_path}/other.pt", "ViT-B-16-SigLIP")):
        with pytest.raises(InputError, match=found):
            load_clip(name)


def test_openais_name_goes_with_a_file_of_its_image_tower(tmp_path, monkeypatch):
    """Their weights are not on this machine: that they are asked for says that the file was understood."""
    torch.save({"conv1.weight": torch.ones(1), "class_embedding": torch.ones(1)}, tmp_path / "fare.pt")
    with pytest.raises(WeightsNotFound, match="ViT-L/14"):
        load_clip(f"ViT-L/14:{tmp_path}/fare.pt")


def test_a_model_of_the_hub_is_named_by_owner_and_model():
    assert resolve("hf-hub:chs20/fare2-clip") == HubName("chs20/fare2-clip")
    assert image_facts("hf-hub:chs20/fare2-clip") is None
    with pytest.raises(InputError, match="fare2-clip'"):
        resolve("hf-hub:fare2-clip")
    with pytest.raises(WeightsNotFound, match="hf-hub:chs20/fare2-clip"):
        load_clip("hf-hub:chs20/fare2-clip")
