"""What single trainers promise beyond the matrix: their own options, the authors' checkpoints, their refusals."""
import random

import pytest
import torch

from clip import encode_texts
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import build_trainer
from dassl.engine.streams import random_streams, set_random_streams
from dassl.utils import UserError

NO_TEST = ("TEST.NO_TEST", True)


def save(path, state):
    path.mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 7, "optimizer": None, "scheduler": None, "val_result": None},
               path / "model.pth.tar-7")


def test_zero_shot_and_vpt_say_the_datasets_own_sentence(make_cfg, monkeypatch):
    for name, opts in (("ZeroshotCLIP", ()), ("VPT", ("TRAINER.VPT.CTX_INIT", ""))):
        cfg = make_cfg(name, *opts)
        monkeypatch.setattr(DATASET_REGISTRY.get("Toy"), "template", "a {}, painted.", raising=False)
        trainer = build_trainer(cfg)
        sentences = [f"a {c.replace('_', ' ')}, painted." for c in trainer.classes.names]
        torch.testing.assert_close(trainer.model.fixed_text, encode_texts(trainer.model.clip, sentences))


def test_coop_reads_and_writes_the_authors_checkpoints(make_cfg, tmp_path):
    ctx = torch.randn(16, 64)
    save(tmp_path / "theirs" / "prompt_learner",
         {"ctx": ctx, "token_prefix": torch.zeros(9, 1, 64), "token_suffix": torch.zeros(9, 60, 64)})
    trainer = build_trainer(make_cfg("CoOp"))
    trainer.load_model(str(tmp_path / "theirs"), epoch=7)
    assert torch.equal(trainer.model.prompt_learner["text"].ctx, ctx)
    trainer.cfg.defrost()
    trainer.save_model(0, str(tmp_path / "ours"))
    ours = torch.load(tmp_path / "ours" / "prompt_learner" / "model.pth.tar-1", weights_only=True)
    assert list(ours["state_dict"]) == ["ctx"] and torch.equal(ours["state_dict"]["ctx"], ctx)


def test_dapt_reads_the_authors_checkpoints(make_cfg, tmp_path):
    txt, vis = torch.randn(16, 64), torch.randn(1, 16, 64)
    save(tmp_path / "theirs" / "prompt_learner",
         {"txt_ctx": txt.half(), "vis_ctx": vis.half(), "token_prefix": torch.zeros(9, 1, 64)})
    trainer = build_trainer(make_cfg("DAPT", "TRAINER.DAPT.VIS_DEPTH", 1))
    trainer.load_model(str(tmp_path / "theirs"), epoch=7)
    learner = trainer.model.prompt_learner
    assert set(learner.state_dict()) == {"txt_ctx", "vis_ctx"}
    assert torch.equal(learner["text"].ctx, txt.half().float())
    assert torch.equal(learner["visual"].tokens, vis.half().float())


def test_vpt_reads_maples_checkpoints_that_hold_a_whole_clip(make_cfg, tmp_path):
    first, second = torch.randn(8, 64), torch.randn(8, 64)
    save(tmp_path / "theirs" / "prompt_learner",
         {"logit_scale": torch.tensor(1.0), "image_encoder.VPT": first, "image_encoder.proj": torch.zeros(64, 32),
          "image_encoder.transformer.resblocks.1.VPT_shallow": second})
    trainer = build_trainer(make_cfg("VPT", "TRAINER.VPT.N_CTX_VISION", 8, "TRAINER.VPT.PROMPT_DEPTH_VISION", 2,
                                     "TRAINER.VPT.PLACEMENT", "end"))
    trainer.load_model(str(tmp_path / "theirs"), epoch=7)
    assert torch.equal(trainer.model.prompt_learner["visual"].tokens, torch.stack([first, second]))


@pytest.mark.parametrize("state, message", [
    ({"txt_ctx": torch.zeros(2)}, "ctx"), ({"ctx": torch.zeros(3, 64)}, "16, 64")])
def test_a_checkpoint_of_another_kind_or_size_is_refused(make_cfg, tmp_path, state, message):
    save(tmp_path / "theirs" / "prompt_learner", state)
    with pytest.raises(UserError, match=message):
        build_trainer(make_cfg("CoOp")).load_model(str(tmp_path / "theirs"), epoch=7)


def test_prototypes_are_cached_under_what_determines_them(make_cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def prototypes(*opts, seed=1):
        return build_trainer(make_cfg("DAPT", *opts, seed=seed)).prototypes

    files = lambda: len(list((tmp_path / "cache").rglob("*.pt")))       # noqa: E731
    first = prototypes()
    assert torch.equal(first, prototypes()) and files() == 1
    assert not torch.equal(first, prototypes("TRAINER.DAPT.PROTOTYPE_VIEW", "test")) and files() == 2
    assert not torch.equal(first, prototypes(seed=2)) and files() == 3
    for file in (tmp_path / "cache").rglob("*.pt"):
        file.write_bytes(b"damaged")
    assert torch.equal(first, prototypes())


def test_clean_prototypes_are_class_means_of_the_test_transform(make_cfg):
    trainer = build_trainer(make_cfg("DAPT", "TRAINER.DAPT.PROTOTYPE_VIEW", "test", "DATASET.NUM_SHOTS", 2))
    images, labels = (torch.cat(parts) for parts in zip(*trainer.training_images("test")))
    features = trainer.model.clip.encode_image(images)
    theirs = torch.stack([features[labels == c].mean(0) for c in range(4)])
    torch.testing.assert_close(trainer.prototypes, theirs)


def test_evaluation_builds_no_prototypes(make_cfg):
    trainer = build_trainer(make_cfg("DAPT"))
    trainer.test()
    assert "prototypes" not in vars(trainer)


@pytest.mark.parametrize("trainer, opts, message", [
    ("DAPT", ("DATASET.NAME", "ToyOne"), "at least 2 classes.*got 1"),
    ("DAPT", ("TRAINER.DAPT.PROTOTYPE_GEN", True), "built inside the training"),
    ("DAPT", ("TRAINER.DAPT.PROTOTYPE_VIEW", "clean"), "got 'clean'"),
    ("DAPT", ("TRAINER.DAPT.VIS_DEPTH", 9), "1 to 3 blocks.*got 9"),
    ("CoOp", ("TRAINER.COOP.CLASS_TOKEN_POSITION", "back"), "got 'back'"),
    ("CoOp", ("TRAINER.COOP.N_CTX", 80), "at most 77 tokens"),
    ("CoOp", ("TRAINER.COOP.PREC", "fp8"), "got 'fp8'"),
    ("CoOp", ("INPUT.SIZE", "(224, 224)"), "32 x 32 images, and INPUT.SIZE is"),
    ("CoOp", ("INPUT.TRANSFORMS", "['center_crop']"), "normalize"),
    ("CoOp", ("MODEL.BACKBONE.NAME", "ViT-B/61"), "did you mean 'ViT-B/"),
    ("VPT", ("TRAINER.VPT.PLACEMENT", "left"), "got 'left'"),
    ("MaPLe", ("TRAINER.MAPLE.PROMPT_DEPTH", 4), "1 to 3 blocks of both towers.*got 4"),
    ("MaPLe", ("TRAINER.MAPLE.CTX_INIT", "a photo"), "1 to 2 of its initial words 'a photo', got 4"),
    ("PromptSRC", ("TRAINER.PROMPTSRC.GPA_STD", 0.0), "above 0 epochs, got 0"),
    ("DPT", ("TRAINER.DPT.TOP_CLASSES", 5), "1 to all 4 of them here, got 5"),
    ("MMRL", ("TEST.SEEN_CLASSES", "some"), "auto, all or none, got 'some'"),
    ("PLOT", ("TRAINER.PLOT.N", 0), "at least 1, got 0"),
])
def test_what_cannot_work_is_refused_with_its_rule(make_cfg, trainer, opts, message):
    with pytest.raises(UserError, match=message):
        build_trainer(make_cfg(trainer, *opts))


def test_a_resnet_is_refused_for_visual_tokens_and_serves_the_others(make_cfg, tmp_path):
    from open_clip.model import CLIP

    torch.manual_seed(0)
    resnet = CLIP(32, dict(layers=[1, 1, 1, 1], width=64, image_size=64),
                  dict(context_length=77, vocab_size=49408, width=64, heads=1, layers=1), quick_gelu=True)
    torch.save(resnet.state_dict(), tmp_path / "resnet.pt")
    opts = ("MODEL.BACKBONE.NAME", tmp_path / "resnet.pt", "INPUT.SIZE", "(64, 64)")
    for trainer in ("VPT", "DAPT", "MaPLe", "IVLP", "MMRL", "UPT", "DPT"):
        with pytest.raises(UserError, match="ViT-B/16"):
            build_trainer(make_cfg(trainer, *opts))
    for trainer in ("CoOp", "PLOT"):
        build_trainer(make_cfg(trainer, *opts, *NO_TEST)).train()


def test_a_loss_that_is_not_finite_stops_with_its_term_epoch_and_images(make_cfg):
    trainer = build_trainer(make_cfg("DAPT", *NO_TEST))
    trainer.prototypes = torch.full((4, 32), float("nan"))
    with pytest.raises(UserError, match=r"(?s)intra.*epoch 1.*toy.*train_x_.*png"):
        trainer.train()


def test_zero_shot_accuracy_is_that_of_the_template(make_cfg):
    from clip import encode_texts

    trainer = build_trainer(make_cfg("ZeroshotCLIP"))
    batches = list(trainer.test_loader)
    text = encode_texts(trainer.model.clip, [f"a photo of a {n.replace('_', ' ')}." for n in trainer.classes.names])
    clip = trainer.model.clip
    right = sum(int((clip.encode_image(b["img"]) @ text.T).argmax(1).eq(b["label"]).sum()) for b in batches)
    assert trainer.test() == pytest.approx(100 * right / sum(len(b["label"]) for b in batches))


def test_a_checkpoint_to_start_from_of_which_nothing_fits_is_refused(make_cfg, tmp_path):
    torch.save({"state_dict": {"other": torch.ones(2)}}, tmp_path / "other.pth.tar")
    with pytest.raises(UserError, match="MODEL.INIT_WEIGHTS.*nothing in .*other.pth.tar fits"):
        build_trainer(make_cfg("CoOp", "MODEL.INIT_WEIGHTS", tmp_path / "other.pth.tar"))


def test_weights_to_start_from_that_do_not_exist_are_refused_by_their_option(make_cfg, tmp_path):
    with pytest.raises(UserError, match=f"MODEL.INIT_WEIGHTS.*{tmp_path / 'nowhere'}"):
        build_trainer(make_cfg("CoOp", "MODEL.INIT_WEIGHTS", tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["AttrVR", "DVPcse"])
def test_descriptions_encoded_for_a_test_serve_a_training_after_it(make_cfg, name):
    trainer = build_trainer(make_cfg(name))
    trainer.test()
    trainer.train()


def test_an_unseeded_run_draws_descriptions_from_the_stream_that_all_processes_share(make_cfg):
    trainer, drawn = build_trainer(make_cfg("AttrVR", "SEED", -1)), []
    for seed in (5, 5, 6):
        random.seed(seed)
        drawn.append(trainer.model.head.draw())
    assert drawn[0] == drawn[1] != drawn[2]


def test_random_streams_do_not_wake_a_gpu_that_is_not_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: pytest.fail("this starts the GPU"))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    state = random_streams()
    assert state["cuda"] == []
    set_random_streams({**state, "cuda": [torch.zeros(16, dtype=torch.uint8)]})


def test_prototypes_of_random_weights_are_not_kept(make_cfg, monkeypatch):
    trainer = build_trainer(make_cfg("DAPT"))
    trainer.model.clip.sha256 = "random"
    monkeypatch.setattr("dassl.utils.tensor_cache._write", lambda *_: pytest.fail("kept"))
    assert trainer.prototypes.shape == (trainer.num_classes, trainer.model.clip.embed_dim)
