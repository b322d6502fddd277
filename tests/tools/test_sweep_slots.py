"""How many runs go side by side, and where; GPUs are a list of names here."""
import pytest

from tools.runs.recipe import RecipeError, load_recipe
from tools.sweeping import slots as module
from tools.sweeping.slots import DEVICES, THREADS, parse_gpus, slots


@pytest.fixture
def machine(monkeypatch):
    """machine(cores=, gpus=, gigabytes=): what `slots` finds there."""

    def be(cores=2, gpus=(), gigabytes=64):
        monkeypatch.setattr(module, "cores", lambda: cores)
        monkeypatch.setattr(module, "gpus", lambda environ: list(gpus))
        monkeypatch.setattr(module, "free_memory", lambda: gigabytes << 30)

    be()
    return be


def cells(config=None, count=12, **opts):
    recipe, opts = load_recipe("coop"), {key.replace("__", "."): value for key, value in opts.items()}
    return [recipe.cell("digits", 16, seed, opts, config or "tiny") for seed in range(count)]


SMALL, LARGE = cells(), cells("vit_b16")


def test_runs_of_the_embedded_model_fill_the_cores_with_a_thread_each_whatever_jobs_says(machine):
    machine(cores=8)
    for jobs, places in ((None, 8), (3, 3), (1, 1), (20, 12)):
        found = slots(SMALL, jobs, environ={})
        assert len(found.devices) == places and found.environment(SMALL[0], 0) == {}     # tools/train.py takes one
    assert module.threads_of("tiny", {}) == 1 and module.threads_of("ViT-B/16", {}) is None


def test_other_models_take_the_whole_cpu_unless_jobs_divides_it(machine):
    machine(cores=8)
    assert len(slots(LARGE, environ={}).devices) == 1 and slots(LARGE, environ={}).environment(LARGE[0], 0) == {}
    two = slots(LARGE, 2, environ={})
    assert len(two.devices) == 2 and two.environment(LARGE[0], 1) == {THREADS: "4"}
    mixed = slots([*SMALL, *LARGE], 4, environ={})
    assert mixed.environment(LARGE[0], 0) == {THREADS: "2"} and mixed.environment(SMALL[0], 0) == {}


def test_the_users_number_of_threads_stands(machine):
    machine(cores=8)
    for chosen in (SMALL, LARGE):
        found = slots(chosen, environ={THREADS: "4"})
        assert len(found.devices) == 2 and found.environment(chosen[0], 0) == {} and "4 threads each" in found.words
    assert module.threads_of("tiny", {THREADS: "4"}) is None
    with pytest.raises(RecipeError, match="OMP_NUM_THREADS must be .*'many'"):
        slots(SMALL, environ={THREADS: "many"})


def test_few_runs_or_little_memory_take_fewer_places(machine):
    machine(cores=8)
    assert len(slots(SMALL[:3], environ={}).devices) == 3 and len(slots([], environ={}).devices) == 1
    machine(cores=64, gigabytes=5)
    assert len(slots(SMALL, environ={}).devices) == 5 and len(slots(SMALL, 10, environ={}).devices) == 10


def test_each_gpu_has_one_large_run_or_several_small_ones_evenly(machine):
    machine(cores=32, gpus=["0", "1"])
    assert slots(LARGE, environ={}).devices == ("0", "1")
    assert slots(SMALL, environ={}).devices == ("0", "1") * 4
    assert slots(LARGE, per_gpu=3, environ={}).devices == ("0", "1") * 3
    assert slots(LARGE, 6, environ={}).devices == ("0", "1") * 3
    assert slots(LARGE, 6, 2, environ={}).devices == ("0", "1") * 2
    assert slots(LARGE, 1, environ={}).devices == ("0",)
    assert slots(SMALL, environ={}).environment(SMALL[0], 1) == {DEVICES: "1"}
    found = slots(LARGE, environ={})
    assert [found.environment(LARGE[0], place)[DEVICES] for place in (0, 1)] == ["0", "1"]


def test_use_cuda_false_keeps_a_sweep_on_the_cpu(machine):
    machine(gpus=["0"])
    assert slots(cells(USE_CUDA="False"), environ={}).devices == ("", "")


def test_the_backbone_of_the_options_counts():
    assert module.backbone_of(cells(MODEL__BACKBONE__NAME="RN50")[0]) == "RN50"
    assert (module.backbone_of(SMALL[0]), module.backbone_of(LARGE[0])) == ("tiny", "ViT-B/16")


@pytest.mark.parametrize(("visible", "found"), [
    ("2,5", ["2", "5"]), ("", []), ("-1", []), ("0,-1,1", ["0"]), ("GPU-8f", ["GPU-8f"]), ("1", ["1"])])
def test_gpus_are_those_that_the_user_lets_be_seen(visible, found, monkeypatch):
    monkeypatch.setattr(module, "_torch_has_cuda", lambda: True)
    monkeypatch.setattr(module, "_has_nvidia_driver", lambda: True)
    assert module.gpus({DEVICES: visible}) == found
    monkeypatch.setattr(module, "_torch_has_cuda", lambda: False)
    assert module.gpus({DEVICES: visible}) == []                # PyTorch's CPU build


def test_parts_of_a_divided_gpu_stand_for_it():
    listing = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-11)
  MIG 3g.20gb     Device  0: (UUID: MIG-aa)
  MIG 3g.20gb     Device  1: (UUID: MIG-bb)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-22)
"""
    assert parse_gpus(listing) == ["MIG-aa", "MIG-bb", "1"]
