"""Cached features: each view of an image passes the tower once for all methods, shots and seeds, and a cache that is
damaged, of other weights or full gives the same numbers."""
import errno
import itertools
import threading

import pytest
import torch

from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from dassl.engine import build_trainer
from dassl.utils.tensor_cache import file_facts
from trainers.cached_features import CachedFeatures

pytestmark = pytest.mark.usefixtures("own_cache")
SHOTS = "DATASET.NUM_SHOTS"


def features(make_cfg, *opts, trainer="TipAdapter", split="train_x", transform="train", **which):
    return CachedFeatures(build_trainer(make_cfg(trainer, *opts, **which)), split, transform)


def files(cache):
    return sorted(cache.glob("features/*/*/*.rows"))


def test_features_are_the_towers_in_the_splits_order(make_cfg):
    trainer = build_trainer(make_cfg("TipAdapter", "DATALOADER.TEST.BATCH_SIZE", 5))
    batches = list(trainer.val_loader)
    images, labels = (torch.cat([batch[key] for batch in batches]) for key in ("img", "label"))
    with torch.no_grad():
        expected = trainer.model.clip.encode_image(images, unit_norm=False)
        wide = trainer.model.clip.encode_image(images, unit_norm=False, joint=False)
    found = CachedFeatures(trainer, "val")
    torch.testing.assert_close(found.view(), expected)
    torch.testing.assert_close(CachedFeatures(trainer, "val", joint=False).view(), wide)
    assert torch.equal(found.labels, labels) and wide.shape == (16, 64)


def test_views_are_random_crops_of_which_each_image_has_its_own_whatever_the_shots_and_the_seed(make_cfg, towers):
    own = features(make_cfg)
    first, second = own.views([0, 1])
    assert first.shape == (16, 32) and not torch.allclose(first, second, atol=1e-3) and sum(towers) == 32
    torch.testing.assert_close(own.mean(2), (first + second) / 2)
    seen = {item.impath: row for item, row in zip(own.items, first, strict=True)}
    for opts, seed, trainer in (((SHOTS, 1), 1, "TipAdapter"), ((), 1, "TipAdapterF"), ((), 2, "TipAdapterF")):
        before, other = sum(towers), features(make_cfg, *opts, seed=seed, trainer=trainer)
        new = [item for item in other.items if item.impath not in seen]
        for item, row in zip(other.items, other.view(), strict=True):
            assert item.impath not in seen or torch.equal(seen[item.impath], row)
        assert sum(towers) - before == len(new)


def test_a_sweep_of_methods_shots_and_seeds_takes_no_view_of_an_image_twice(make_cfg, towers, tmp_path, monkeypatch):
    computed, compute = [], CachedFeatures._compute
    monkeypatch.setattr(CachedFeatures, "_compute", lambda self, places, *a: computed.extend(
        (self.transform, number, self.items[i].impath) for number, i in places) or compute(self, places, *a))
    runs = 0
    for name, shots, seed in itertools.product(("TipAdapter", "TipAdapterF"), (1, 2), (1, 2)):
        build_trainer(make_cfg(name, SHOTS, shots, "TRAINER.TIPADAPTER.SELECT", "fixed", seed=seed,
                               output=tmp_path / str(runs))).train()
        runs += 1
    assert runs == 8 and len(computed) == len(set(computed)) == sum(towers)


def test_a_run_is_tested_on_the_same_features_as_an_image_by_itself_has(make_cfg):
    trainer = build_trainer(make_cfg("TipAdapterF"))
    trainer.train()
    answers = trainer.answers(trainer.test_loader, "test")
    for (_, output, labels), batch in zip(answers, trainer.test_loader, strict=True):
        torch.testing.assert_close(output, trainer.model_inference(batch["img"]))
        assert torch.equal(labels, batch["label"])


def test_a_loader_of_somebody_elses_making_is_answered_image_by_image(make_cfg, towers):
    trainer = build_trainer(make_cfg("TipAdapter"))
    plain, test = build_transform(trainer.cfg, is_train=False), trainer.dm.dataset.test
    for items, transform in ((test[:3], plain), (test, lambda image: 0 * plain(image))):
        loader, before = build_data_loader(trainer.cfg, data_source=items, is_train=False, tfm=transform), sum(towers)
        with torch.no_grad():
            answers = torch.cat([output for _, output, _ in trainer.answers(loader, "test")])
        assert len(answers) == len(items) == sum(towers) - before
    torch.testing.assert_close(answers, answers[:1].expand_as(answers))


@pytest.mark.parametrize("harm", ["half of it", "a bit", "another name", "nothing", "no header"])
def test_a_damaged_file_is_removed_and_computed_again(harm, make_cfg, towers, own_cache, caplog):
    whole = features(make_cfg).view()
    path, = files(own_cache)
    data = path.read_bytes()
    name = data[data.index(b'["') + 2:data.index(b'.0"')]
    path.write_bytes({"half of it": data[:len(data) // 2], "a bit": data[:-1] + bytes([data[-1] ^ 1]), "nothing": b"",
                      "no header": data[200:], "another name": data.replace(name, name[::-1])}[harm])
    again = features(make_cfg).view()
    assert torch.equal(again, whole) and sum(towers) == 32 and any("damaged" in r.message for r in caplog.records)
    assert [p.read_bytes() for p in files(own_cache)] == [data]


def test_other_weights_images_transforms_and_precisions_have_features_of_their_own(make_cfg, towers, tmp_path,
                                                                                  tiny_clip_weights, monkeypatch):
    changed = {**tiny_clip_weights, "visual.proj": tiny_clip_weights["visual.proj"] + 0.01}
    torch.save(changed, tmp_path / "other.pt")
    first, calls = features(make_cfg).view(), 16
    for opts in (("MODEL.BACKBONE.NAME", tmp_path / "other.pt"), ("INPUT.RRCROP_SCALE", "(0.5, 1.0)"),
                 ("TRAINER.TIPADAPTER.PREC", "bf16")):
        calls += 16
        assert not torch.equal(features(make_cfg, *opts).view(), first) and sum(towers) == calls
    monkeypatch.setattr("trainers.cached_features.file_facts", lambda paths: [(p, size, time + 1) for p, size, time in
                                                                       file_facts(paths)])
    features(make_cfg).view()
    assert sum(towers) == calls + 16


def test_no_more_is_kept_than_was_allowed(make_cfg, towers, own_cache, caplog):
    view = features(make_cfg, "TRAIN.FEATURES_MB", 0).view()
    assert not files(own_cache) and any("are not kept" in r.message for r in caplog.records)
    assert torch.equal(features(make_cfg).view(), view) and sum(towers) == 32


def test_half_precision_takes_half_the_space_and_keeps_three_digits(make_cfg, own_cache):
    view = features(make_cfg).view()
    features(make_cfg, "TRAIN.FEATURES_FP16", True).view()
    half = features(make_cfg, "TRAIN.FEATURES_FP16", True).view()
    assert torch.equal(half, view.half().float())
    small, large = sorted(p.stat().st_size for p in files(own_cache))
    assert 1000 < large - small < 1050                      # of 16 * 32 * 2, but for digits of the checksum


def test_a_full_disk_costs_the_cache_and_no_number(make_cfg, towers, own_cache, monkeypatch, caplog):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("dassl.utils.row_store.write_whole", full)
        view = features(make_cfg).view()
    assert any("No space left" in r.message for r in caplog.records) and not files(own_cache)
    assert torch.equal(features(make_cfg).view(), view) and sum(towers) == 32


def test_a_long_extraction_keeps_what_it_has_as_it_goes(make_cfg, own_cache, monkeypatch, towers):
    from clip import FrozenCLIP

    monkeypatch.setattr("trainers.cached_features._BYTES", 1)
    encode, opts = FrozenCLIP.encode_image, ("DATALOADER.TEST.BATCH_SIZE", 5)
    with monkeypatch.context() as patch:
        patch.setattr(FrozenCLIP, "encode_image", lambda clip, images, **k: encode(clip, images, **k) if len(towers) < 2
                      else (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            features(make_cfg, *opts).view()
    assert len(files(own_cache)) == 2
    features(make_cfg, *opts).view()
    assert towers == [5, 5, 5, 1]


def test_an_image_that_is_listed_twice_has_its_features_twice(make_cfg, towers):
    own = features(make_cfg)
    own.items = [*own.items[:3], own.items[0]]
    view = own.view()
    assert torch.equal(view[0], view[3]) and view.any(dim=1).all() and sum(towers) == 3


def test_two_that_extract_at_once_do_the_work_once(make_cfg, towers):
    sides, found = [features(make_cfg), features(make_cfg)], {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: sides[n].view()})) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found[0], found[1]) and sum(towers) == 16


def test_features_that_are_not_finite_are_refused_and_not_kept(make_cfg, own_cache, monkeypatch):
    from clip import FrozenCLIP
    from dassl.utils import UserError

    own = features(make_cfg)
    monkeypatch.setattr(FrozenCLIP, "encode_image", lambda clip, images, **k: torch.full((len(images), 32), torch.nan))
    with pytest.raises(UserError, match="16 of 16 images of train_x .* not finite"):
        own.view()
    assert not files(own_cache)
