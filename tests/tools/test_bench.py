"""The benchmark compares like with like: both sides compute the same, and the floor counts what a counter counts."""
import json
import sys
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from clip.products import by_onednn
from clip.tokenizer import encode
from tools import bench
from tools.labs.bench import floor, loading, measure, memory, report, run, zoo
from tools.labs.bench.rows import BACKBONES, MOST_CLASSES, PRM, TRAINERS, Row, Settings, class_names
from tools.labs.bench.timing import PARTS, Watch
from tools.labs.bench.workload import build_trainer
from tools.train import ROOT
from trainers.parts.pixel_prompt import PixelPrompt

SETTINGS = Settings()
ATTENTION = {                                # unknown to the counter of PyTorch 2.5
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
        lambda q, k, v, *rest, out_shape=None, **options: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward:
        lambda out, q, k, v, *rest, out_shape=None, **options: sdpa_backward_flop_count(out, q, k, v),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


def both(name, folder, C=6, B=3):
    row = Row(name, "tiny", C, B)
    return [measure.step_of(side, row, SETTINGS, measure.trainer_of(side, row, SETTINGS, folder))
            for side in ("field", "ours")]


def operations(step) -> int:
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        step(Watch())
    return counter.get_total_flops()


@pytest.mark.parametrize("name", TRAINERS)
def test_field_and_ours_compute_the_same(name, folder):
    field, our = both(name, folder)
    theirs, mine = field(Watch()), our(Watch())
    torch.testing.assert_close(torch.as_tensor(mine), torch.as_tensor(theirs), rtol=1e-5, atol=1e-5)
    if name == PRM or Row(name, "tiny", 6, 3).trains:
        gradients = field.gradients()
        assert gradients.keys() == our.gradients().keys() and gradients
        for key, gradient in gradients.items():            # relative to the largest entry of each
            assert gradient.abs().max() > 0
            torch.testing.assert_close(our.gradients()[key], gradient, rtol=0, atol=2e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("name", ["CoOp", "DAPT", "CoCoOp"])
def test_pieces_of_classes_cost_the_towers_the_same_and_give_the_same_loss(name, folder):
    whole, pieces, others = (both(name, folder)[0] for _ in range(3))
    pieces.trainer.model.clip.piece, others.trainer.model.clip.piece = 2, 4
    assert operations(pieces) == operations(whole)
    assert others(Watch()) == pytest.approx(both(name, folder)[0](Watch()), rel=1e-5)


@pytest.mark.parametrize("name", TRAINERS[:-1])
def test_ours_does_no_less_than_the_floor_counts_and_the_field_no_less_than_ours(name, folder):
    field, our = both(name, folder, C=8)
    needed = sum(ops.total for ops in floor.operations(Row(name, "tiny", 8, 3), our.trainer).values())
    assert needed <= operations(our) <= operations(field)


def plain_block(own, seen, weights, read=None):
    """Attention of the tokens `own` to those `seen` and the MLP, one head; parts of `seen` are projected apart."""
    qkv, out, up, down = weights
    W = len(qkv)
    k, v = (torch.cat([x @ qkv[:, i * W:(i + 1) * W] for x in seen]) for i in (1, 2))
    queries = [x[:read] for x in own] if read else own
    q = torch.cat([x @ qkv[:, :W] for x in queries])
    x = (q @ k.t()).softmax(-1) @ v @ out
    return (x @ up).relu() @ down


def random_weights(W, hidden):
    return [torch.randn(size) for size in ((W, 3 * W), (W, W), (W, hidden), (hidden, W))]


@pytest.mark.parametrize(("n", "frozen", "replaced"), [(0, 0, 0), (4, 0, 0), (4, 2, 0), (4, 0, 2), (4, 1, 1)])
def test_the_floor_of_the_image_tower_is_what_a_counter_counts(n, frozen, replaced):
    P, patch, W, hidden, depth, D = 9, 2, 8, 20, 4, 6
    with FlopCounterMode(display=False) as counter:
        x = torch.cat([torch.randn(1, W), torch.randn(P, 3 * patch ** 2) @ torch.randn(3 * patch ** 2, W)])
        for _ in range(frozen):
            x = plain_block([x], [x], random_weights(W, hidden))
        for _ in range(replaced):
            x = plain_block([x], [torch.randn(n, W, requires_grad=True), x], random_weights(W, hidden))
        parts = [torch.randn(n, W, requires_grad=True), x] if n else [x]
        for _ in range(depth - 1 - replaced):
            parts = [plain_block(parts, parts, random_weights(W, hidden))]
        out = plain_block(parts, parts, random_weights(W, hidden), read=1) @ torch.randn(W, D)
        if n:
            out.sum().backward()
    assert counter.get_total_flops() == floor.vision(P, patch, W, hidden, depth + frozen, D, n, frozen, replaced).total


def test_the_floor_of_learned_pixels_is_what_a_counter_counts():
    P, touched, patch, W, hidden, depth, D = 9, 4, 2, 8, 20, 4, 6
    pixels = torch.randn(touched, 3 * patch ** 2, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        rest = torch.randn(P - touched, 3 * patch ** 2) @ torch.randn(3 * patch ** 2, W)
        parts = [pixels @ torch.randn(3 * patch ** 2, W), torch.cat([torch.randn(1, W), rest])]
        for _ in range(depth - 1):
            parts = [plain_block(parts, parts, random_weights(W, hidden))]
        (plain_block(parts, parts, random_weights(W, hidden), read=1) @ torch.randn(W, D)).sum().backward()
    assert counter.get_total_flops() == floor.framed(P, touched, patch, W, hidden, depth, D).total


@pytest.mark.parametrize(("size", "inner", "patch", "touched"), [(8, 4, 2, 12), (9, 8, 3, 5)])
def test_patches_with_a_learned_pixel_are_counted(size, inner, patch, touched):
    assert floor.touched_patches(PixelPrompt(size, inner), patch) == touched


@pytest.mark.parametrize("R", [1, 3])
def test_the_floor_of_the_text_tower_is_what_a_counter_counts(R):
    p, own, W, hidden, depth, D = 5, [3, 4, 7], 8, 20, 4, 6
    prefixes = [torch.randn(p, W, requires_grad=True) for _ in range(R)]
    with FlopCounterMode(display=False) as counter:
        features = plain_text(prefixes, [torch.randn(s, W) for s in own], W, hidden, depth) @ torch.randn(W, D)
        features.sum().backward()
    assert counter.get_total_flops() == floor.text(p, own, W, hidden, depth, D, R).total


def plain_text(prefixes, classes, W, hidden, depth):
    """(R*C, W): every class behind every prefix, without masks, which change no product; the last token is read."""
    streams = None
    for level in range(depth):
        weights = random_weights(W, hidden)
        qkv, out, up, down = weights
        last, first = level == depth - 1, level == 0
        split = [[x @ qkv[:, i * W:(i + 1) * W] for i in range(3)] for x in classes] if first else None
        fixed = [q @ k.t() for q, k, _ in split] if first else None
        new_prefixes, new_streams = [], []
        for r, prefix in enumerate(prefixes):
            pk, pv = prefix @ qkv[:, W:2 * W], prefix @ qkv[:, 2 * W:]
            if not last:
                new_prefixes.append(plain_tail((prefix @ qkv[:, :W] @ pk.t()).softmax(-1) @ pv, out, up, down))
            for c in range(len(classes)):
                if first:
                    (q, k, v), scores = split[c], fixed[c]
                else:
                    x = streams[r][c]
                    q, k, v = (x[-1:] if last else x) @ qkv[:, :W], x @ qkv[:, W:2 * W], x @ qkv[:, 2 * W:]
                    scores = q @ k.t()
                looks = torch.cat([q @ pk.t(), scores], dim=1).softmax(-1)
                new_streams.append(plain_tail(looks[:, :len(pk)] @ pv + looks[:, len(pk):] @ v, out, up, down))
        prefixes, streams = new_prefixes, [new_streams[i:i + len(classes)]
                                           for i in range(0, len(new_streams), len(classes))]
    return torch.cat([x for row in streams for x in row])


def plain_tail(attended, out, up, down):
    return (attended @ out @ up).relu() @ down


def test_the_matrix_rate_is_of_a_shape_of_the_towers():
    rate, shape = floor.matrix_rate("cpu", torch.float32, tokens=(8,), widths=(4,), repeats=1)
    assert rate > 0 and shape in {"(8, 4) x (4, 12)", "(8, 4) x (4, 16)", "(8, 16) x (16, 4)"}


@pytest.mark.parametrize(("choice", "library", "multiply"),
                         [("on", "oneDNN", by_onednn), ("off", "F.linear", F.linear)])
def test_the_floor_is_at_the_rate_of_the_library_that_our_steps_take(choice, library, multiply, folder, monkeypatch):
    monkeypatch.setattr("clip.products.has_onednn", lambda: True)
    taken = []
    monkeypatch.setattr(floor, "matrix_rate", lambda device, dtype, by: taken.append(by) or (1e9, "shape"))
    monkeypatch.setattr(measure, "take_turns", lambda *args: {side: [dict.fromkeys(PARTS, 1.0)] for side in
                                                              measure.SIDES})
    row = Row("CoOp", "tiny", 6, 3)
    found = measure.measure(row, replace(SETTINGS, onednn=choice), folder, with_memory=False)
    assert taken == [multiply] * 2
    assert found["matrix_rate"] == {"gflops": 1.0, "shape": "shape", "library": library}


def test_a_ratio_is_that_of_one_round():
    assert measure.spread([10, 30, 80], [10, 10, 10]) == {"median": 3, "min": 1, "max": 8}


def test_sides_take_turns_and_a_short_first_round_is_thrown_away():
    order = []
    steps = {side: lambda watch, side=side: order.append(side) for side in measure.SIDES}
    times = measure.take_turns(steps, "cpu", rounds=3, seconds=0.0, say=lambda text: None)
    assert order[0] == "ours" and order[3:] == ["field", "ours", "ours", "field", "field", "ours"]
    assert len(times["ours"]) == len(times["field"]) == 3
    assert set(times["ours"][0]) == set(PARTS)


def test_a_step_that_does_not_fit_is_timed_in_pieces(folder, monkeypatch):
    row = Row("CoOp", "tiny", 40, 2)
    trainer = measure.trainer_of("field", row, SETTINGS, folder)
    assert measure.piece_that_fits(row, "cpu", trainer) == 0
    monkeypatch.setattr(measure, "free_memory", lambda device: 2 ** 22)
    piece = measure.piece_that_fits(row, "cpu", trainer)
    assert 1 <= piece < 40
    assert any(f"{piece} classes at a time" in note for note in measure._notes(row, SETTINGS, piece))
    assert not measure.piece_that_fits(replace(row, trainer="VPT"), "cpu", trainer)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells and resets a process's peak")
def test_the_peak_of_a_process_of_its_own_is_measured(folder, forked):
    row = Row("CoOp", "tiny", 200, 2)
    model = measure.trainer_of("field", row, SETTINGS, folder).model
    peak = forked(memory._measure, {"row": asdict(row), "settings": asdict(SETTINGS), "side": "field"})()
    assert peak > measure._kept(model, 200) / 2 ** 20 > 50


def test_both_loaders_are_timed(folder):
    found = loading.measure(Row("CoOp", "tiny", 6, 4), SETTINGS, folder, images=8, epochs=1)
    assert found.keys() == {"field", "ours"} and found["field"].in_workers and min(own.ms for own in found.values()) > 0


def test_only_workers_beside_a_gpu_hide_loading():
    workers = loading.Loading(30.0, True)
    assert workers.waits("cuda", 20.0) == 10 and workers.waits("cuda", 50.0) == 0
    assert workers.waits("cpu", 50.0) == loading.Loading(30.0, False).waits("cuda", 50.0) == 30


def test_class_names_are_different_and_one_to_four_tokens_long():
    names = class_names(MOST_CLASSES)
    assert len(set(names)) == MOST_CLASSES == 1000 and names[:37] == class_names(37)
    assert {len(encode(name)) for name in names} == {1, 2, 3, 4}


def test_json_and_table_hold_every_row_with_its_fields(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(floor, "matrix_rate", lambda *args, **kwargs: (1e11, "(8, 4) x (4, 12)"))
    file = tmp_path / "bench.json"
    words = "--backbones tiny --trainers CoOp DVP-PRM --classes 4 5 --batch 2 --rounds 1 --seconds 0 --no-memory " \
            "--no-data --threads 1"
    assert bench.cli([*words.split(), "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result.keys() == {"machine", "settings", "matrix_rate", "rows"}
    assert result["machine"].keys() >= {"cpu", "cores", "threads", "gpu", "torch"} and result["machine"]["cpu"]
    assert [(row["trainer"], row["classes"]) for row in result["rows"]] == [("CoOp", 4), ("CoOp", 5), ("DVP-PRM", 5)]
    for row in result["rows"]:
        assert row.keys() == {"trainer", "backbone", "classes", "batch", "rounds", "notes", "field", "ours", "ratio",
                              "text_ratio", "operations", "floor", "matrix_rate"}
        for side in measure.SIDES:
            assert row[side].keys() == {"ms", "images_per_s", "peak_memory_mb"}
            assert row[side]["ms"].keys() == {"data", *PARTS, "step"}
        assert row["floor"].keys() == {"ms", "operations", "ours_times", "field_times"}
        assert row["ratio"].keys() == {"median", "min", "max"}
    table = capsys.readouterr().out
    assert all(column in table for column in report.COLUMNS) and table.count("DVP-PRM") == 1
    assert f"{result['machine']['cpu']} ({result['machine']['processor']})" in table
    assert "Matrix products: 100 GFLOP/s by F.linear, measured for each row" in table


def test_the_waiting_for_data_is_not_held_against_the_floor():
    side = {"ms": {"data": 50.0, "step": 80.0}}
    row = {"operations": {"image": {"forward": 2e9, "backward": 1e9}}, "ours": side, "field": side,
           "matrix_rate": {"gflops": 1000.0}}
    assert report.add_floor(row)["floor"] == {"ms": 3.0, "operations": 3e9, "ours_times": 10.0, "field_times": 10.0}


@pytest.mark.parametrize(("words", "told"), [
    (["--trainers", "CoOpp"], "Did you mean CoOp?"), (["--backbones", "VIT-B16"], "Did you mean ViT-B/16?"),
    (["--classes", "1"], "2 to 1,000 classes; --classes has 1"),
    (["--batch", "0"], "--batch must be at least 1, got 0"),
    (["--device", "cpu", "--precision", "fp16"], "A CPU runs fp32 or bf16"),
    (["--backbones", "RN50", "--trainers", "VPT"], "RN50 has none")])
def test_what_cannot_be_measured_is_told_before_anything_runs(words, told, capsys):
    assert bench.cli(words) == 2 and told in capsys.readouterr().err


def test_a_json_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "run", lambda args: pytest.fail("it was measured"))
    (tmp_path / "file").write_text("kept")
    for place, why in (("gone/x.json", "No such file"), ("", "Is a directory"), ("file/x.json", "Not a directory")):
        assert bench.cli(["--json", str(tmp_path / place)]) == 2
        assert f"{tmp_path / place} cannot be written ({why}" in capsys.readouterr().err
    monkeypatch.setattr(run, "run", lambda args: (_ for _ in ()).throw(KeyboardInterrupt))
    assert [bench.cli(["--json", str(tmp_path / name)]) for name in ("file", "new")] == [130, 130]
    assert (tmp_path / "file").read_text() == "kept" and not (tmp_path / "new").exists()


def test_all_is_every_trainer_on_every_backbone_that_can():
    rows = run.plan(bench.parser().parse_args(["--all", "--classes", "100"]))
    can = [(t, b) for b in BACKBONES for t in TRAINERS[:-1] if not (b == "RN50" and Row(t, "", 2, 1).method.needs_vit)]
    assert [(row.trainer, row.backbone) for row in rows] == [*can, ("DVP-PRM", "")]


def test_the_docs_explain_every_column():
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert all(f"`{column}`" in text for column in report.COLUMNS if column)


def test_resnet_images_are_counted_on_the_tower_itself(folder):
    visual = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.Flatten(), torch.nn.Linear(32, 4))
    clip = type("Clip", (), {"visual": visual, "vision_width": None, "image_size": 4, "logit_scale": torch.zeros(())})
    assert floor.image_operations(clip).total == 2 * 16 * 3 * 2 + 2 * 32 * 4
    assert measure.step_of("ours", Row("DVP-PRM", "", 3, 2), SETTINGS, None).scores.shape == (2, 3, 60)


def test_an_attack_is_measured_beside_the_passes_that_it_takes(capsys):
    from tools.labs.bench import attacked
    from trainers.parts.attack_names import Attack

    found = attacked.measure("tiny", 3, 2, Attack.parse("pgd:1/255:2"), rounds=1)
    assert found["ratio"] == pytest.approx(found["seconds"] / found["passes_alone"]) and found["passes_alone"] > 0
    assert "PGD, eps 1/255, 2 steps" in attacked.table({"attacks": [found]})
    assert bench.cli(["--attack", "pgd:4", "--backbones", "tiny"]) == 2 and "got 4" in capsys.readouterr().err


def test_the_zoo_measures_each_method_next_to_coop_and_names_those_without_a_step(folder):
    lines = zoo.measure(["TCP", "TaskRes", "MMA"], "tiny", 6, 4, SETTINGS, 2, folder)
    tcp, taskres, mma = lines
    assert tcp["learned"] == build_trainer(Row("TCP", "tiny", 6, 4), SETTINGS, folder).learned_parameters
    assert (tcp["features"], taskres["features"]) == (False, True) and min(tcp["ms"], taskres["ms"]) > 0
    assert tcp["times"]["min"] <= tcp["times"]["median"] <= tcp["times"]["max"]
    assert "5 to 12" in mma["why"]                          # its published blocks, which the embedded tower lacks
    result = {"zoo": lines, "backbone": "tiny", "classes": 6, "batch": 4, "machine": report.machine("cpu"),
              "settings": asdict(SETTINGS)}
    assert f"{tcp['learned']:,}" in zoo.table(result) and f"MMA: {mma['why']}" in zoo.table(result)


def test_the_zoo_refuses_a_method_that_takes_no_steps(capsys):
    assert bench.cli(["--zoo", "GDA"]) == 2
    assert "'GDA'" in capsys.readouterr().err
