"""What is drawn are the run's numbers; every name can be read; what cannot be drawn is told in one paragraph."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tools import plot
from tools.runs.recipe import ROOT

sys.path.insert(0, str(Path(__file__).parent))
from figures import axes, figure, legible, refused, texts, write_result  # noqa: E402

SENTENCE = "a wide chromed grille with round lamps, seen from the side in front of a hedge, "


def dvp_state(C, m=6, v=3, sentences=None, side=32, inner=24):
    """A checkpoint of v borders and C classes with m descriptions for each cause, drawn from a fixed stream."""
    rng = torch.Generator().manual_seed(C)
    weights = torch.rand(C, v * m, generator=rng) ** 6
    sentences = sentences or [[f"{SENTENCE[i % 9:] * (1 + i % 2)}({c}.{i})" for i in range(v * m)] for c in range(C)]
    return {**{f"pixel.{p}.program": 3 * torch.randn(3, side ** 2 - inner ** 2, generator=rng) for p in range(v)},
            "bank.prompt_of": torch.arange(v).repeat_interleave(m).repeat(C, 1),
            "bank.text": torch.frombuffer(bytearray(json.dumps(sentences).encode()), dtype=torch.uint8),
            "bank.mapping.weights": weights / weights.sum(1, keepdim=True)}


def test_a_trained_run_is_drawn_into_its_folder(make_cfg, capsys, tmp_path):
    from dassl.engine import build_trainer

    cfg = make_cfg("DVPcse")
    build_trainer(cfg).train()
    capsys.readouterr()                                         # the result's lines
    run = tmp_path / "run"
    (run / "config.yaml").write_text(cfg.dump())
    capsys.readouterr()                                         # what the training said
    for words, name in ((["prm"], "prm.png"), (["prm", "--format", "pdf", "--style", "dark"], "prm-dark.pdf"),
                        (["prompts", "--format", "svg"], "prompts.svg")):
        assert plot.cli([words[0], str(run), *words[1:]]) == 0
        assert (run / "plots" / name).stat().st_size > 5000
        assert capsys.readouterr().out.strip() == str(run / "plots" / name)
    assert plot.cli(["prm", str(run), "--out", str(tmp_path / "mine.pdf")]) == 0
    assert (tmp_path / "mine.pdf").read_bytes()[:4] == b"%PDF"


def test_prm_shows_the_weight_of_every_class_on_every_prompt(make_run):
    state = dvp_state(14)
    names = [f"class {c}" for c in range(14)]
    fig = figure("prm", make_run("DVPcse", state, names))
    drawn = {}
    for ax in axes(fig, "shares"):
        columns = torch.stack([torch.from_numpy(image.get_array().data)[:, 0] for image in ax.images], dim=1)   # (r, v)
        box = ax.get_position()
        labels = [t for t in fig.texts if t.get_text() in names and t.get_position()[0] < box.x0
                  and box.x0 - t.get_position()[0] < 0.02 and box.y0 < t.get_position()[1] < box.y1]
        labels.sort(key=lambda t: -t.get_position()[1])
        drawn |= dict(zip([t.get_text() for t in labels], columns, strict=True))
    assert sorted(drawn) == sorted(names)
    for c, name in enumerate(names):
        literal = [sum(float(state["bank.mapping.weights"][c, i]) for i in range(18) if i // 6 == p) for p in range(3)]
        torch.testing.assert_close(drawn[name], torch.tensor(literal), atol=1e-6, rtol=1e-5)


def test_prm_shows_the_heaviest_descriptions_of_the_chosen_classes(make_run):
    state = dvp_state(5)
    fig = figure("prm", make_run("DVPcse", state, list("abcde")), classes=["D"], top=4)
    (ax,) = axes(fig, "top d")
    heaviest = state["bank.mapping.weights"][3].sort(descending=True)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(heaviest.values[:4].tolist())
    written = " ".join(text.get_text() for text in fig.texts)
    marks = [f"(3.{i})" for i in heaviest.indices[:4].tolist()]
    assert all(mark in written for mark in marks) and written.count("(3.") == 4
    assert [written.index(mark) for mark in marks] == sorted(written.index(mark) for mark in marks)
    assert [ax for ax in fig.axes if str(ax.get_gid()).startswith("top")] == [ax]


def test_a_description_that_was_drawn_twice_is_one_bar_of_both_weights(make_run):
    state = dvp_state(1, m=2, v=1, sentences=[["the same sentence", "the same sentence"]])
    fig = figure("prm", make_run("DVPcls", state, ["only"]))
    assert [bar.get_width() for bar in axes(fig, "top only")[0].patches] == pytest.approx([1.0])


def test_by_default_every_prompt_is_shown_with_classes_that_lean_on_it(make_run):
    state = dvp_state(30)
    fig = figure("prm", make_run("DVPcse", state, [f"class {c}" for c in range(30)]))
    shown = [int(ax.get_gid().split()[-1]) for ax in fig.axes if str(ax.get_gid()).startswith("top")]
    shares = state["bank.mapping.weights"].view(30, 3, 6).sum(-1)
    assert len(shown) == 8 and set(shares.argmax(0).tolist()) <= set(shown)


def test_prompts_are_named_by_cause_and_by_cluster(make_run):
    from tools.plotting.prm import prompt_names
    from tools.runs.run import Run

    own = make_run("DVPcse", folder="shapes", opts=["TRAINER.DVPCSE.CAUSES", "(1, 3)"])
    run = Run(own)
    run.settings["DATASET"]["NAME"] = "ShapesClutter"
    assert prompt_names(run, 2) == ["cause 1: shape", "cause 3: texture"]
    assert prompt_names(Run(own), 2) == ["cause 1", "cause 3"]                 # the toy set names none
    run.settings["TRAINER"]["DVPCSE"]["DESCRIPTIONS"] = "mine"                 # and neither do files of one's own
    assert prompt_names(run, 2) == ["cause 1", "cause 3"]
    assert prompt_names(Run(make_run("DVPcls")), 2) == ["cluster 1", "cluster 2"]


def test_the_page_grows_with_many_prompts_and_with_names_wider_than_it(make_run):
    state = dvp_state(3, m=2, v=14)
    legible(figure("prm", make_run("DVPcls", state, ["a" * 160, "two", "three"])))


@pytest.mark.parametrize(("C", "name"), [(2, "{}"), (10, "{} striped circle"), (48, "purple checkered crescent {}"),
                                         (100, "{} BMW Silverado 2500HD Regular Cab, the price is $5 or $6")])
def test_every_class_is_named_and_no_text_is_cut_off_or_drawn_over_another(make_run, C, name):
    names = [name.format(c) for c in range(C)]
    fig = figure("prm", make_run("DVPcse", dvp_state(C), names))
    legible(fig)
    labels = [text.get_text() for text in texts(fig)]
    assert all(label in labels for label in names)


def test_the_border_is_what_the_prompt_learned_in_pixel_space(make_run):
    state = dvp_state(4)
    fig = figure("prompts", make_run("DVPcse", state))
    legible(fig)
    outside = torch.ones(32, 32, dtype=torch.bool)
    outside[4:28, 4:28] = False
    for p in range(3):
        learned = state[f"pixel.{p}.program"].sigmoid()                        # (3, F)
        shown = torch.tensor(axes(fig, f"border {p}")[0].images[0].get_array())    # (S, S, 4)
        torch.testing.assert_close(shown[outside][:, :3].T, learned)
        assert not shown[..., 3][~outside].any() and shown[..., 3][outside].all()
        for channel, values in zip(("red", "green", "blue"), learned - 0.5):
            change = axes(fig, f"{channel} {p}")[0].images[0].get_array()
            torch.testing.assert_close(torch.tensor(change.data)[outside], values)
            assert change.mask[4:28, 4:28].all()
        prompted = torch.tensor(axes(fig, f"prompted {p} 0")[0].images[0].get_array())
        plain = torch.tensor(axes(fig, "plain 0")[0].images[0].get_array())
        torch.testing.assert_close(prompted[4:28, 4:28], plain)
        torch.testing.assert_close(prompted[outside].T, learned)


def test_a_frame_is_drawn_in_the_units_of_the_normalised_image(make_run):
    program = torch.randn(3, 32 ** 2 - 24 ** 2)
    fig = figure("prompts", make_run("VP", {"pixel.program": program}))
    legible(fig)
    outside = torch.ones(32, 32, dtype=torch.bool)
    outside[4:28, 4:28] = False
    shown = torch.tensor(axes(fig, "green 0")[0].images[0].get_array().data)
    torch.testing.assert_close(shown[outside], program[1])
    plain, prompted = (torch.tensor(axes(fig, gid)[0].images[0].get_array()) for gid in ("plain 0", "prompted 0 0"))
    green = (plain[..., 1][outside] + 0.26130258 * program[1]).clamp(0, 1)
    torch.testing.assert_close(prompted[..., 1][outside], green)
    assert not axes(fig, "border 0")                        # it has no colours of its own


def test_an_image_of_ones_own_needs_no_dataset(make_run, toy_root):
    run = make_run("AR", {"pixel.program": torch.zeros(3, 32 ** 2 - 24 ** 2)}, opts=["DATASET.ROOT", "nowhere"])
    own = sorted(toy_root.glob("toy/test*.png"))[:2]
    fig = figure("prompts", run, files=own)
    assert len(axes(fig, "plain 1")) == 1 and own[0].stem in [text.get_text() for text in texts(fig)]


def test_what_cannot_be_drawn_is_told_in_one_paragraph(make_run, tmp_path, capsys):
    other = make_run("CoOp", {"ctx": torch.zeros(4, 64)}, folder="coop")
    dvp = make_run("DVPcse", dvp_state(3), ["one", "two", "three"], folder="dvp")
    assert "does not exist" in refused(["prm", tmp_path / "nothing"], capsys)
    assert f"Runs below it: {other}" in refused(["prm", tmp_path], capsys)
    assert "is a run of CoOp" in refused(["prm", other], capsys)
    assert "is a run of CoOp" in refused(["prompts", other], capsys)
    assert "Did you mean three?" in refused(["prm", dvp, "--classes", "thre"], capsys)
    assert "it has those of 2" in refused(["prm", dvp, "--epoch", 7], capsys)
    assert "--top takes 1 or more" in refused(["prm", dvp, "--top", 0], capsys)
    assert "ends in .gif" in refused(["prm", dvp, "--out", "x.gif"], capsys)
    assert "Give one of the two" in refused(["prm", dvp, "--out", "x.pdf", "--format", "svg"], capsys)
    assert "has no checkpoint" in refused(["prm", make_run("DVPcse", folder="gone")], capsys)
    assert "continue it" in refused(["prm", make_run("DVPcse", folder="cut", record=False)], capsys)
    four = make_run("DVPcse", dvp_state(3), ["one", "two"], folder="changed")
    assert "descriptions of 3 classes" in refused(["prm", four], capsys)


def test_a_run_that_only_tested_names_the_one_that_learned(make_run, capsys):
    run = make_run("DVPcls")
    (run / "results.json").write_text(json.dumps({"mode": "eval-only"}))
    (run / "inputs.json").write_text(json.dumps({"flags": {"model_dir": "digits/DVPcls/tiny_16shots/seed1"}}))
    assert ".../digits/DVPcls/tiny_16shots/seed1" in refused(["prm", run], capsys)


def test_help_teaches_and_needs_no_matplotlib():
    code = "import sys; from tools import plot; plot.parser(); print([m for m in sys.modules if 'matplotlib' in m])"
    reply = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert reply.stdout.strip() == "[]", reply.stderr
    assert "examples:" in plot.parser().format_help()


LOG = ("epoch [{}/2] batch [{}/2] time 0.1 (0.1) data 0.0 (0.0) loss {} ({}) acc 50.0 ({}) ce 0.5 (0.5) lr {} "
       "eta 0:00:01\n")


def test_the_curves_of_a_training_are_those_of_its_log(trained):
    fig = figure("curves", trained)
    legible(fig)
    log = (trained / "log.txt").read_text()
    lines = [line for line in log.splitlines() if re.match(r"epoch \[\d+/2\] batch \[(\d+)/\1\] ", line)]
    assert len(lines) == 2                                                  # of the last batch of each epoch
    (loss,), (accuracy,), (rate,) = (axes(fig, gid) for gid in ("loss", "accuracy, %", "learning rate"))
    drawn = {line.get_gid(): line for line in (*loss.lines, *accuracy.lines)}
    for name, line in (("loss", drawn["loss"]), ("acc", drawn["training batches"])):
        means = [float(text.split(f" {name} ")[1].split("(")[1].split(")")[0]) for text in lines]
        assert line.get_ydata() == pytest.approx(means, abs=1e-3) and list(line.get_xdata()) == [1, 2]
    last = [float(text.split(" loss ")[1].split()[0]) for text in lines]
    batches = drawn["loss batches"]
    assert [batches.get_ydata()[i] for i in (len(batches.get_ydata()) // 2 - 1, -1)] == pytest.approx(last, abs=1e-3)
    assert rate.lines[0].get_ydata()[-1] == pytest.approx(float(lines[-1].split(" lr ")[1].split()[0]), rel=1e-3)
    assert drawn["test split"].get_ydata() == pytest.approx(
        [json.loads((trained / "results.json").read_text())["metrics"]["accuracy"]])


def test_without_tensorboard_the_log_is_drawn(make_run, capsys):
    run = make_run("CoOp")
    (run / "log.txt").write_text("Loaded\n" + LOG.format(1, 2, 2.0, 3.0, 25, 0.2) + LOG.format(2, 2, 1.0, 1.5, 75, 0.1))
    drawn = {line.get_gid(): line for ax in figure("curves", run).axes for line in ax.lines}
    assert list(drawn["loss"].get_ydata()) == [3.0, 1.5] and list(drawn["loss batches"].get_ydata()) == [2.0, 1.0]
    assert list(drawn["training batches"].get_ydata()) == [25, 75] and list(drawn["ce"].get_ydata()) == [0.5, 0.5]
    (run / "log.txt").write_text("nothing was trained\n")
    assert "tells of no training" in refused(["curves", run], capsys)


def test_few_shot_curves_are_means_and_spreads_over_seeds(tmp_path, capsys):
    from tools.runs.recipe import load_recipe

    write_result(tmp_path, "dtd", "CoOp", "vit_b16_16shots@new", 1, 10, 16)      # another protocol, not in the figure
    for d, dataset in enumerate(("dtd", "eurosat")):
        write_result(tmp_path, dataset, "ZeroshotCLIP", "vit_b16", 1, 40.0 + d, 0)
        for shots in (1, 4, 16):
            for seed in (1, 2) if (dataset, shots) != ("eurosat", 4) else (1,):
                write_result(tmp_path, dataset, "CoOp", f"vit_b16_{shots}shots", seed, 50 + shots + 4 * seed + d, shots)
    fig = figure("curves", tmp_path)
    legible(fig)
    (ax,), (eurosat,), (average,) = (axes(fig, gid) for gid in ("dtd", "eurosat", "average"))
    lines = {line.get_gid(): line for line in ax.lines}
    assert list(lines["CoOp"].get_xdata()) == [1, 4, 16] and list(lines["CoOp"].get_ydata()) == [57, 60, 72]
    assert lines["zero-shot"].get_ydata() == [40.0] and lines["zero-shot"].get_xdata() == [0]
    band = ax.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in band.tolist()} >= {(1.0, 55.0), (1.0, 59.0), (16.0, 70.0), (16.0, 74.0)}
    known = load_recipe("coop").row("dtd")["published"]
    known = {shots: value for shots, value in known.items() if value is not None}
    assert dict(zip(lines["CoOp published"].get_xdata(), lines["CoOp published"].get_ydata())) == known
    assert [line.get_gid() for line in eurosat.lines if "lacks" in line.get_gid()] == ["CoOp 4 lacks seeds"]
    assert list({line.get_gid(): line for line in average.lines}["CoOp"].get_ydata()) == [57.5, (60 + 59) / 2, 72.5]
    assert plot.cli(["curves", str(tmp_path)]) == 0 and (tmp_path / "plots" / "curves.png").is_file()
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    assert "no finished few-shot run" in refused(["curves", tmp_path / "empty"], capsys)


def test_curves_of_one_trainer_are_named_by_what_sets_them_apart(tmp_path):
    from tools.plotting import fewshot

    for variant in ("", "-TRAINER.DAPT.TXT_BETA=0.0", "-OPTIM.LR=0.1"):
        write_result(tmp_path, "dtd", "DAPT", f"vit_b16_4shots{variant}", 1, 60, 4)
    write_result(tmp_path, "dtd", "CoOp", "vit_b16_4shots", 1, 50, 4)
    write_result(tmp_path, "dtd", "CoOp", "rn50_4shots", 1, 50, 4)
    names = fewshot.read(tmp_path).methods
    assert set(names) == {"DAPT", "DAPT CE + intra", "DAPT LR=0.1", "CoOp vit_b16", "CoOp rn50"}


def test_runs_of_two_folders_splits_and_backbones_are_never_points_of_one_line(tmp_path):
    from tools.plotting import fewshot

    for place, plus in (("new", 0), ("old", 5)):
        for dataset in ("dtd", "eurosat"):
            for shots in (4, 16):
                write_result(tmp_path / place, dataset, "CoOp", f"vit_b16_{shots}shots", 1, 50 + shots + plus, shots)
                write_result(tmp_path / "new", dataset, "VPT", f"vit_b16_deep_{shots + plus}shots", 1, 50, shots + plus)
            for name, accuracy in (("vit_b16", 40.0), ("rn50", 30.0), ("VPT-vit_b16_deep", 41.0)):
                write_result(tmp_path / place, dataset, "ZeroshotCLIP", name, 1, accuracy + plus, 0)
    write_result(tmp_path / "new", "dtd", "CoOp", "vit_b16_8shots", 1, 99, 8)
    on_val = tmp_path / "new" / "dtd" / "CoOp" / "vit_b16_8shots" / "seed1" / "results.json"
    on_val.write_text(json.dumps({**json.loads(on_val.read_text()), "split": "val"}))
    found = fewshot.average(fewshot.read(tmp_path))
    for name, plus in (("new", 0), ("old", 5)):
        for dataset in ("dtd", "eurosat", "average"):
            points = found.curves[dataset][f"CoOp in {name}"]
            assert [(p.shots, p.mean) for p in points] == [(4, 54 + plus), (16, 66 + plus)]
            assert found.zero_shot[dataset][f"zero-shot vit_b16 in {name}"] == 40 + plus
    assert not any("rn50" in name for name in found.zero_shot_names) and len(found.zero_shot_names) == 4
    assert list(found.published["dtd"]) == ["CoOp in new"] and len(found.zero_shot_published["dtd"]) == 1
    legible(figure("curves", tmp_path))


def test_published_curves_of_methods_that_were_not_run_are_drawn_if_asked_for(tmp_path):
    from tools.plotting import fewshot

    write_result(tmp_path, "dtd", "DAPT", "vit_b16_4shots", 1, 60, 4)
    own, every, none = (fewshot.read(tmp_path, published) for published in ("own", "all", "none"))
    assert "CoOp" not in own.methods and none.published == {}
    assert {p.shots: p.mean for p in every.published["dtd"]["CoOp"]}.keys() == {4, 16}
    legible(figure("curves", tmp_path, published="all"))


def test_confusion_shows_the_runs_own_matrix_and_testing_again_gives_the_same(trained, caplog):
    from tools.plotting import confusion
    from tools.runs.run import Run

    matrix = torch.load(trained / "cmat.pt").float()
    (trained / "cmat.pt").unlink()
    from_predictions = confusion.read(Run(trained))[1]
    (trained / "predictions.csv").unlink()
    names, again = confusion.read(Run(trained))
    torch.testing.assert_close(from_predictions, again)
    kept = again.sum(0).bool() | again.sum(1).bool()                        # cmat.pt has only labels that occur
    torch.testing.assert_close(again[kept][:, kept], matrix)
    assert len(names) == 4 and "Tested again" not in caplog.text
    fig = figure("confusion", trained)
    legible(fig)
    layers = {image.get_gid(): torch.tensor(image.get_array().filled(0)) for ax in fig.axes for image in ax.images
              if image.get_gid() in ("right", "wrong")}
    torch.testing.assert_close(layers["right"] + layers["wrong"], again)
    assert layers["right"].diagonal().sum() == layers["right"].sum() and not layers["wrong"].diagonal().any()


def test_testing_again_for_a_figure_tells_how_far_it_is(trained, monkeypatch, capsys):
    monkeypatch.setenv("DASSL_PROGRESS_SECONDS", "0")
    (trained / "cmat.pt").unlink()
    (trained / "predictions.csv").unlink()
    figure("confusion", trained)
    assert "test split: " in capsys.readouterr().err


def test_ctrl_c_and_a_file_that_cannot_be_written_end_without_a_traceback(tmp_path, monkeypatch, capsys):
    write_result(tmp_path, "dtd", "CoOp", "vit_b16_4shots", 1, 50, 4)
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refused(["curves", tmp_path, "-o", tmp_path / "file" / "curves.png"], capsys)

    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(plot, "main", interrupt)
    assert plot.cli(["curves", str(tmp_path)]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_confusion_says_when_the_run_no_longer_gives_its_result(trained, caplog):
    record = json.loads((trained / "results.json").read_text())
    record["metrics"]["accuracy"] += 1
    (trained / "results.json").write_text(json.dumps(record))
    (trained / "cmat.pt").unlink()
    (trained / "predictions.csv").unlink()
    figure("confusion", trained)
    assert "Tested again" in caplog.text


@pytest.mark.parametrize(("C", "name"), [(2, "{}"), (10, "digit {}"), (100, "{} BMW Silverado 2500HD Regular Cab")])
def test_the_confusion_of_any_number_of_classes_can_be_read(make_run, C, name):
    names = [name.format(c) for c in range(C)]
    run = make_run("CoOp", names=names)
    matrix = torch.rand(C, C, generator=torch.Generator().manual_seed(C), dtype=torch.float64) ** 9
    torch.save(matrix / matrix.sum(1, keepdim=True), run / "cmat.pt")
    fig = figure("confusion", run)
    legible(fig)
    labels = [text.get_text() for text in texts(fig)]
    assert all(labels.count(label) >= 2 for label in names)
    if C > 2:
        few = figure("confusion", run, classes=names[1:3], top=3)
        (layer,) = [image for ax in few.axes for image in ax.images if image.get_gid() == "wrong"]
        assert layer.get_array()[0, 1] == pytest.approx(float(matrix[1, 2] / matrix[1].sum()))


def test_the_readmes_commands_are_understood():
    import shlex

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(line, comments=True)[2:] for line in re.findall(r"^python tools/plot\.py .*$", text, re.M)]
    assert {plot.parser().parse_args(words).figure for words in commands} >= {"prm", "prompts", "curves", "confusion"}
