"""Maps of features show the same images before and after; measurements are literal formulas; words are the nearest."""
import csv
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from figures import axes, figure, legible, refused, texts

from dassl.engine import build_trainer
from tools import plot
from tools.plotting import embeddings, features, words
from tools.plotting.measures import MEASURES, measure
from tools.runs.run import Run


def literal(images, labels, texts):
    """The numbers, image by image and pair by pair."""
    def distance(a, b):
        return math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist())))

    def pairs(rows):
        return [distance(rows[i], rows[j]) for i in range(len(rows)) for j in range(i)]

    dispersion = [math.exp(-2 * d * d) for d in pairs(texts)]
    means = {c: images[labels == c].mean(0) for c in labels.unique().tolist()}
    within = [distance(image, means[c]) for image, c in zip(images, labels.tolist())]
    between = pairs(list(means.values()))
    ratio = (sum(between) / len(between)) / (sum(within) / len(within))
    return {"text_uniformity": math.log(sum(dispersion) / len(dispersion)),
            "text_inter_dispersion": sum(dispersion) / len(dispersion), "image_within": sum(within) / len(within),
            "image_between": sum(between) / len(between), "image_ratio": ratio,
            "modality_gap": distance(images.mean(0), texts.mean(0))}


def test_uniformity_and_compactness_are_the_papers_formulas():
    rng = torch.Generator().manual_seed(3)
    images, texts = (F.normalize(torch.randn(n, 6, generator=rng), dim=1) for n in (12, 4))
    labels = torch.tensor([0, 0, 0, 2, 2, 5, 5, 5, 5, 0, 2, 5])
    assert measure(images, labels, texts) == pytest.approx(literal(images, labels, texts), rel=1e-5)
    assert set(measure(images, labels, texts)) == set(MEASURES)


def test_what_too_few_classes_or_images_do_not_tell_is_none():
    one = measure(torch.eye(3), torch.tensor([0, 1, 2]), torch.eye(3)[:1])
    assert one["text_uniformity"] is None and one["text_inter_dispersion"] is None and one["image_within"] is None
    assert one["image_ratio"] is None and one["image_between"] == pytest.approx(math.sqrt(2))
    assert measure(torch.eye(3), torch.tensor([0, 0, 0]), torch.eye(3))["image_between"] is None


def test_before_is_zero_shot_clip_and_after_is_what_the_run_tests_with(toy_run, make_cfg, tmp_path):
    folder = toy_run("DAPT")
    found = features.read(Run(folder), (), 24, 100)
    zero = build_trainer(make_cfg("ZeroshotCLIP", output=tmp_path / "zero"))
    again = build_trainer(make_cfg("DAPT", output=tmp_path / "again"))
    again.load_model(str(folder))
    for trainer, side in ((zero, found.before), (again, found.after)):
        trainer.set_model_mode("eval")
        with torch.no_grad():
            out = [trainer.model(batch["img"]) for batch in trainer.test_loader]
        torch.testing.assert_close(side.images, torch.cat([o.image_features for o in out]), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(side.texts, out[0].text_features, atol=1e-6, rtol=1e-5)
    assert found.labels.tolist() == [c for c in range(4) for _ in range(6)] and found.shown == [0, 1, 2, 3]
    assert (found.before.images - found.after.images).abs().max() > 1e-4


def test_before_is_the_same_for_a_method_whose_images_are_smaller_and_not_normalised(toy_run):
    plain, padded = (features.read(Run(toy_run(trainer)), (), 24, 3).before for trainer in ("CoOp", "AR"))
    torch.testing.assert_close(padded.images, plain.images)
    torch.testing.assert_close(padded.texts, plain.texts)


def test_texts_that_every_image_shifts_are_averaged_over_all_images(toy_run, make_cfg, tmp_path):
    folder = toy_run("CoCoOp", "DATALOADER.TEST.BATCH_SIZE", 7)                      # 24 images: the last batch has 3
    again = build_trainer(make_cfg("CoCoOp", output=tmp_path / "again"))
    again.load_model(str(folder))
    again.set_model_mode("eval")
    with torch.no_grad():
        shifted = torch.cat([again.model(batch["img"]).text_features for batch in again.test_loader])     # (24, 4, D)
    found = features.read(Run(folder), (), 24, 100).after
    torch.testing.assert_close(found.texts, F.normalize(shifted.mean(0), dim=-1), atol=1e-6, rtol=1e-5)


def test_a_trainer_of_others_is_not_imported_unasked_and_refused_in_words(make_run, tmp_path, capsys):
    plugin = tmp_path / "mine.py"
    plugin.write_text("""
import torch
from dassl.engine import TRAINER_REGISTRY, TrainerX

@TRAINER_REGISTRY.register()
class MineOfThisPlot(TrainerX):
    def build_model(self):
        self.model = torch.nn.Linear(4, 4)
        self.register_model("prompt_learner", self.model)
""")
    run = make_run("CoOp", torch.nn.Linear(4, 4).state_dict())
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("NAME: CoOp", "NAME: MineOfThisPlot"))
    (run / "inputs.json").write_text(json.dumps({"flags": {"plugin": [str(plugin)]}}))
    err = refused(["embeddings", run], capsys)
    assert "is not run unasked" in err and f"--plugin {plugin}" in err
    assert "is a run of MineOfThisPlot" in refused(["embeddings", run, "--plugin", plugin], capsys)


def test_a_run_that_only_tested_is_drawn_with_the_prompts_it_tested_wherever_both_lie_now(toy_run, tmp_path, capsys):
    learned = toy_run("CoOp")
    first = features.read(Run(learned), (), 24, 3).after
    out = tmp_path / "moved" / "toy" / "CoOp" / "tiny_4shots"
    out.mkdir(parents=True)
    learned.rename(out / "seed1")
    tested = out.parent / "tiny_4shots@again" / "seed1"
    tested.mkdir(parents=True)
    (tested / "config.yaml").write_text((out / "seed1" / "config.yaml").read_text())
    (tested / "results.json").write_text(json.dumps({"mode": "eval-only", "split": "test", "command": "python t.py"}))
    (tested / "inputs.json").write_text(json.dumps({"flags": {"model_dir": "toy/CoOp/tiny_4shots/seed1"}}))
    torch.testing.assert_close(features.read(Run(tested), (), 24, 3).after.texts, first.texts)
    capsys.readouterr()
    assert ".../toy/CoOp/tiny_4shots/seed1" in refused(["words", tested], capsys)
    assert "Choose one of them with --epoch" in refused(["embeddings", out / "seed1", "--epoch", 77], capsys)


def test_the_figure_and_its_numbers_beside_it(toy_run, capsys):
    run = toy_run("CoOp")
    capsys.readouterr()                                         # what the training said
    assert plot.cli(["embeddings", str(run), "--images", "5"]) == 0
    assert capsys.readouterr().out.strip() == str(run / "plots" / "embeddings.png")
    written = json.loads((run / "plots" / "embeddings.json").read_text())
    found = embeddings.find(Run(run), images=5)
    for key, side in (("before", found.before), ("after", found.after)):
        assert written[key] == pytest.approx(literal(side.images, found.labels, side.texts), rel=1e-4)
    assert written["images"] == 20 and len(written["classes_with_images"]) == 4
    fig = figure("embeddings", run, images=5)
    legible(fig)
    shown = [text.get_text() for text in texts(fig)]
    assert f"{written['after']['text_uniformity']:.3f}".replace("-", "−") in shown
    (before,), (after,) = axes(fig, "before"), axes(fig, "after")
    for ax in (before, after):
        drawn = {points.get_gid(): points for points in ax.collections}
        assert {f"{kind} {name}" for kind in ("images", "text") for name in found.classnames} == set(drawn)
        assert [len(drawn[f"images {name}"].get_offsets()) for name in found.classnames] == [5] * 4
    colours = [[points.get_facecolor()[0, :3].tolist() for points in ax.collections] for ax in (before, after)]
    assert colours[0] == colours[1]


def test_the_maps_are_the_same_at_every_call_and_turning_keeps_distances(toy_run):
    found = embeddings.find(Run(toy_run("CoOp")))
    first, second = (embeddings.lay_out.__wrapped__(found) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second))
    angle = np.array([[0.0, 1.0], [1.0, 0.0]])                                      # mirrored
    turned = embeddings.turned(first[0] @ angle + 7, first[0])
    np.testing.assert_allclose(turned, first[0] - first[0].mean(0), atol=1e-4)


def test_only_the_chosen_classes_and_so_many_images_are_drawn(toy_run, capsys):
    run = toy_run("CoOp")
    fig = figure("embeddings", run, classes=["blue square", "red_square"], images=2)
    drawn = {points.get_gid(): len(points.get_offsets()) for points in axes(fig, "after")[0].collections}
    assert drawn == {"images red_square": 2, "text red_square": 1, "images blue_square": 2, "text blue_square": 1}
    capsys.readouterr()
    assert "Did you mean red_square?" in refused(["embeddings", run, "--classes", "red_squar"], capsys)
    assert "at least 4 images" in refused(["embeddings", run, "--classes", "red_square", "--images", 2], capsys)
    assert not (run / "plots").exists()


def test_a_draw_of_images_is_even_over_classes_and_always_the_same():
    class Item:
        def __init__(self, label, place):
            self.label, self.place = label, place

    source = [Item(i % 3, i) for i in range(60)]
    drawn = features.draw_images(source, [2, 0], 5)
    assert [item.label for item in drawn] == [2] * 5 + [0] * 5
    assert drawn == features.draw_images(source, [2, 0], 5) and len({item.place for item in drawn}) == 10


def vocabulary(make_run, ctx, **options):
    return Run(make_run("CoOp", {"ctx": ctx}, **options))


def table_of(run):
    from clip import load_clip

    return load_clip(run.settings["MODEL"]["BACKBONE"]["NAME"]).token_embedding.weight.detach()


def test_the_nearest_words_are_those_of_the_plain_distance(make_run):
    rng = torch.Generator().manual_seed(0)
    run = vocabulary(make_run, 0.02 * torch.randn(3, 64, generator=rng))
    found, table = words.read(run, top=4), table_of(run)
    assert len(found.contexts) == 1
    for vector, (_, row) in zip(run.learned["ctx"], found.words.groupby("position"), strict=True):
        distances = (table - vector).square().sum(1).sqrt()
        assert list(row.token) == distances.sort(stable=True).indices[:4].tolist()
        assert list(row.distance) == pytest.approx(distances.sort().values[:4].tolist(), rel=1e-4)


def test_a_context_that_is_words_finds_these_words_at_no_distance(make_run):
    from clip.tokenizer import encode

    run = vocabulary(make_run, torch.zeros(3, 64))
    run.learned["ctx"] = table_of(run)[list(encode("photo of café"))[:3]]
    (context,) = words.read(run).contexts.values()
    assert [(texts[0], distances[0]) for texts, distances in context] == [("photo", 0), ("of", 0), ("café", 0)]


def test_pieces_and_bytes_of_the_vocabulary_are_spelt():
    from clip.tokenizer import END, simple_tokenizer

    encoder = simple_tokenizer().encoder
    assert words.spell(encoder["photo</w>"]) == ("photo", True) and words.spell(encoder["photo"]) == ("photo", False)
    assert words.spell(END)[1] and all(words.spell(token)[0].isprintable() for token in range(600))


def test_contexts_of_classes_are_shown_by_name_and_a_shared_one_has_no_class(make_run, capsys):
    own = torch.randn(4, 2, 64, generator=torch.Generator().manual_seed(1))
    run = make_run("CoOp", {"ctx": own}, names=["ant", "bee", "big cat", "dog"], opts=["TRAINER.COOP.CSC", "True"])
    assert list(words.read(Run(run)).contexts) == ["ant", "bee", "big cat"]
    assert plot.cli(["words", str(run), "--class", "big cat", "--top", "2"]) == 0
    out = capsys.readouterr().out
    expected = words.read(Run(run), ("big cat",), 2).words.distance
    assert "big cat:" in out and "ant:" not in out and all(f"{distance:.3f}" in out for distance in expected)
    assert out.strip().endswith(str(run / "plots" / "words.png")) and (run / "plots" / "words.png").is_file()
    shared = make_run("CoOp", {"ctx": own[0]}, folder="shared")
    assert "share one context" in refused(["words", shared, "--class", "ant"], capsys)
    assert "Did you mean bee?" in refused(["words", run, "--class", "beee"], capsys)
    assert "is a run of VPT" in refused(["words", make_run("VPT", {"visual": own}, folder="vpt")], capsys)
    assert "another backbone" in refused(["words", make_run("CoOp", {"ctx": torch.zeros(4, 7)}, folder="wide")], capsys)


def test_words_as_figure_and_as_csv(make_run, tmp_path, capsys):
    run = make_run("DAPT", {"txt_ctx": torch.randn(5, 64, generator=torch.Generator().manual_seed(1))})
    legible(figure("words", run, top=7))
    assert plot.cli(["words", str(run), "--out", str(tmp_path / "w.csv"), "--top", "3"]) == 0
    with (tmp_path / "w.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = words.read(Run(run), top=3).words
    assert [(int(r["position"]), int(r["rank"]), int(r["token"])) for r in rows] == list(
        found[["position", "rank", "token"]].itertuples(index=False, name=None))
    assert plot.cli(["words", str(run), "--format", "svg"]) == 0 and (run / "plots" / "words.svg").is_file()
    capsys.readouterr()
    assert "x.gif" in refused(["words", run, "--out", "x.gif"], capsys)
