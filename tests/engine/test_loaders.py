"""What public code does to the loaders: copies them, builds its own over our dataset, exchanges the transform."""
import copy
import multiprocessing
import signal
import subprocess

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler, SequentialSampler, Subset

from dassl.data import DataManager, DatasetWrapper
from dassl.data.transforms import build_transform
from dassl.utils import UserError, read_image, set_random_seed

PLAIN, DRAWING = ("random_resized_crop", "random_flip", "normalize"), ("random_resized_crop", "randaugment")
WORKERS = [0, 2]
BATCH_AND_SINGLE = [(PLAIN, 2), (DRAWING, 0)]       # images made a batch at a time, and one by one


@pytest.fixture
def loader(engine_cfg, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    def make(transforms=PLAIN, workers=0, **changes):
        manager = DataManager(engine_cfg(DATALOADER__NUM_WORKERS=workers, INPUT__TRANSFORMS=transforms, **changes))
        return manager.train_loader_x

    return make


def pixels(loader):
    return torch.cat([batch["img"] for batch in loader])


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("transforms", [PLAIN, DRAWING])
@pytest.mark.parametrize("sampler", ["RandomSampler", "SequentialSampler"])
def test_a_loader_of_ones_own_over_dataset_and_sampler_gives_every_image(loader, transforms, workers, sampler):
    ours = loader(transforms, workers, DATALOADER__TRAIN_X__SAMPLER=sampler)
    theirs = DataLoader(copy.deepcopy(ours.dataset), batch_size=ours.batch_size, sampler=ours.sampler,
                        num_workers=ours.num_workers, drop_last=False, pin_memory=ours.pin_memory)
    batches = list(theirs)
    assert sorted(i for batch in batches for i in batch["index"].tolist()) == list(range(18))
    assert all(len(batch["img"]) == len(batch["label"]) for batch in batches)
    if sampler == "SequentialSampler":                  # the same order and, by the fixed seed, the same draws
        for batch, expected in zip(batches, ours, strict=False):
            assert batch.keys() == expected.keys() and batch["impath"] == expected["impath"]
            assert all(torch.equal(batch[key], expected[key]) for key in ("img", "label", "domain", "index"))


@pytest.mark.parametrize(("transforms", "workers"), BATCH_AND_SINGLE)
def test_a_loader_that_was_iterated_can_be_copied(loader, transforms, workers):
    ours = loader(transforms, workers)
    next(iter(ours))
    twin = copy.deepcopy(ours)
    assert twin.dataset is not ours.dataset and len(pixels(twin)) == len(pixels(ours)) == 16


@pytest.mark.parametrize(("before", "workers"), BATCH_AND_SINGLE)
def test_a_transform_exchanged_between_epochs_is_the_one_that_is_used(loader, before, workers):
    ours = loader(before, workers)
    pixels(ours)
    ours.dataset.transform = lambda image: torch.full((3, 2, 2), 7.0)
    assert torch.equal(pixels(ours), torch.full((16, 3, 2, 2), 7.0))


def test_an_exchanged_transform_draws_the_same_whatever_the_number_of_workers(loader):
    def noisy(image):
        return torch.rand(3, 2, 2)

    draws = []
    for workers in WORKERS:
        ours = loader(PLAIN, workers)
        ours.dataset.transform = noisy
        torch.manual_seed(3)
        draws.append(pixels(ours))
    assert torch.equal(*draws)


def test_a_subset_and_plain_indices_give_single_images(loader):
    dataset = loader().dataset
    assert dataset[3]["img"].shape == (3, 8, 8)
    batches = list(DataLoader(Subset(dataset, range(5)), batch_size=2))
    assert [len(batch["label"]) for batch in batches] == [2, 2, 1]


@pytest.mark.parametrize(("transforms", "workers"), BATCH_AND_SINGLE)
def test_a_pass_within_a_pass_leaves_the_outer_one_alone(loader, transforms, workers):
    ours = loader(transforms, workers, DATALOADER__TRAIN_X__SAMPLER="SequentialSampler")
    seen, inner = [], []
    for batch, again in zip(ours, ours, strict=True):
        seen += batch["index"].tolist()
        inner += again["index"].tolist()
        assert next(iter(ours))["index"].tolist() == [0, 1, 2, 3] and len(seen) <= 16
    assert seen == inner == list(range(16))


def test_workers_stay_between_passes_that_follow_one_another(loader):
    ours = loader(DRAWING, workers=2)
    processes = []
    for _ in range(2):
        assert len(pixels(ours)) == 16
        processes.append([w.pid for w in ours._iterator._workers])
    assert len(next(iter(ours))["label"]) == 4                  # a pass that is given up does not count as going on
    pixels(ours)
    assert [w.pid for w in ours._iterator._workers] == processes[0] == processes[1]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_wrapper_with_a_constructor_and_items_of_its_own_is_used_as_it_is(engine_cfg, workers, monkeypatch):
    class Paths(DatasetWrapper):
        def __init__(self, cfg, data_source, transform=None, is_train=False):
            self.source = data_source

        def __len__(self):
            return len(self.source)

        def __getitem__(self, idx):
            return {"path": self.source[idx].impath, "label": self.source[idx].label}

    monkeypatch.setattr("os.cpu_count", lambda: 2)
    manager = DataManager(engine_cfg(DATALOADER__NUM_WORKERS=workers), dataset_wrapper=Paths)
    for split, counts in ((manager.train_loader_x, 16), (manager.val_loader, 9), (manager.test_loader, 12)):
        assert sum(len(batch["path"]) for batch in split) == counts


def test_a_subclass_finds_the_plain_transform_of_its_base(engine_cfg):
    class WithPlain(DatasetWrapper):
        def __getitem__(self, idx):
            output = super().__getitem__(idx)
            return {**output, "plain": self.to_tensor(read_image(output["impath"]))}

    manager = DataManager(engine_cfg(), dataset_wrapper=WithPlain)
    batch = next(iter(manager.val_loader))
    assert batch["plain"].shape == batch["img"].shape and "img0" not in batch
    wrapper = manager.train_loader_x.dataset
    assert (wrapper.k_tfm, wrapper.return_img0, wrapper.is_train) == (1, False, True)
    assert wrapper.transform is not None and wrapper.cfg is not None


@pytest.mark.parametrize(("transforms", "workers"), BATCH_AND_SINGLE)
def test_images_taken_out_and_labels_given_between_epochs_are_seen(loader, transforms, workers):
    ours = loader(transforms, workers, DATALOADER__TRAIN_X__BATCH_SIZE=3)
    assert len({path for batch in ours for path in batch["impath"]}) == 18
    items = ours.dataset.data_source
    for item in items:
        item._label = 7                                                     # a pseudo-label
    del items[::2]
    seen = [pair for batch in ours for pair in zip(batch["impath"], batch["label"].tolist(), strict=True)]
    assert sorted(seen) == sorted((item.impath, 7) for item in items) and len(seen) == 9


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this system does not say who sent a signal")
def test_workers_outlive_a_signal_to_the_process_group_and_end_when_their_parent_says_so(loader):
    others = set(multiprocessing.active_children())
    ours = loader(DRAWING, 2)
    batches = iter(ours)                                               # workers may be starting when it comes
    workers = [child for child in multiprocessing.active_children() if child not in others]
    for name in ("-TERM", "-HUP", "-TERM"):                            # from another process, as `timeout` sends it
        subprocess.run(["kill", name, *(str(worker.pid) for worker in workers)], check=True)
    assert sum(len(batch["label"]) for batch in batches) == 16 and len(workers) == 2
    assert all(worker.is_alive() for worker in workers)
    for worker in workers:
        worker.terminate()
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]


def dassls_loader(cfg, items, transform, is_train):
    """Dassl 0.6.3's build_data_loader, literally, over a dataset that reads an image and transforms it."""
    class Images(Dataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, i):
            return {"img": transform(read_image(items[i].impath)), "index": i}

    sampler = RandomSampler(items) if is_train else SequentialSampler(items)
    return DataLoader(Images(), batch_size=4, sampler=sampler, num_workers=cfg.DATALOADER.NUM_WORKERS,
                      drop_last=is_train and len(items) >= 4)


@pytest.mark.parametrize("workers", WORKERS)
def test_with_streams_dassl_every_pass_draws_what_dassls_draw(engine_cfg, workers):
    """Over tests, epochs and a loader of one's own: the same images, in the same order, equally augmented."""
    cfg = engine_cfg(DATALOADER__NUM_WORKERS=workers, INPUT__TRANSFORMS=DRAWING, TRAIN__STREAMS="dassl",
                     DATALOADER__TRAIN_X__BATCH_SIZE=4, DATALOADER__TEST__BATCH_SIZE=4)
    manager = DataManager(cfg)
    data, ours = manager.dataset, {"train": manager.train_loader_x, "test": manager.test_loader}
    theirs = {"train": dassls_loader(cfg, data.train_x, build_transform(cfg, is_train=True), True),
              "test": dassls_loader(cfg, data.test, build_transform(cfg, is_train=False), False)}
    seen = []
    for loaders in (ours, theirs):
        set_random_seed(3)
        own = DataLoader(loaders["train"].dataset, batch_size=4, sampler=loaders["train"].sampler, num_workers=workers)
        passes = [list(loader) for loader in (loaders["test"], own, loaders["train"], loaders["test"], own)]
        seen.append([(batch["index"].tolist(), batch["img"]) for one in passes for batch in one])
        after = torch.get_rng_state()
        seen[-1].append((after.tolist(), after))
    assert len(seen[0]) == len(seen[1]) == 3 + 5 + 4 + 3 + 5 + 1
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(*seen, strict=True))


def test_streams_dassl_is_refused_in_several_processes(engine_cfg, monkeypatch):
    monkeypatch.setattr("dassl.utils.distributed.world_size", lambda: 2)
    with pytest.raises(UserError, match="TRAIN.STREAMS dassl"):
        DataManager(engine_cfg(TRAIN__STREAMS="dassl"))
