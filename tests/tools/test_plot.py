"""What is drawn are the run's numbers; every name can be read; what cannot be drawn is told in one paragraph."""
import json
import re
from dataclasses import replace

import pytest
import torch
from figures import axes, figure, legible, refused, selected, texts, write_result

from tools import plot
from tools.runs.recipe import ROOT
from tools.tables.select import rows_below

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


def test_a_trained_run_is_drawn_into_its_folder(toy_run, capsys):
    run = toy_run("DVPcse")
    capsys.readouterr()                                         # what the training said
    for words, name in ((["prm", "--format", "pdf", "--style", "dark"], "prm-dark.pdf"),
                        (["prompts", "--format", "svg", "--paper"], "prompts-paper.svg")):
        assert plot.cli([words[0], str(run), *words[1:]]) == 0
        assert (run / "plots" / name).stat().st_size > 5000
        assert capsys.readouterr().out.strip() == str(run / "plots" / name)


def test_prm_shows_the_weight_of_every_class_on_every_prompt(make_run):
    state, names = dvp_state(14), [f"class {c}" for c in range(14)]
    fig = figure("prm", make_run("DVPcse", state, names))
    drawn = {}
    for ax in axes(fig, "shares"):
        labels = [label.get_text() for label in ax.get_yticklabels()]
        for text in ax.texts:
            p, r = text.get_position()
            drawn.setdefault(labels[r], {})[p] = text.get_text()
    shares = state["bank.mapping.weights"].view(14, 3, 6).sum(-1)
    assert drawn == {name: {p: f"{100 * float(shares[c, p]):.0f}" for p in range(3)} for c, name in enumerate(names)}


def test_prm_shows_the_heaviest_descriptions_of_the_chosen_classes(make_run):
    state = dvp_state(5)
    fig = figure("prm", make_run("DVPcse", state, list("abcde")), classes=["D"], top=4)
    (ax,) = axes(fig, "top d")
    heaviest = state["bank.mapping.weights"][3].sort(descending=True)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx(heaviest.values[:4].tolist())
    written = " ".join(label.get_text() for label in ax.get_yticklabels())
    marks = [f"(3.{i})" for i in heaviest.indices[:4].tolist()]
    assert all(mark in written for mark in marks) and written.count("(3.") == 4
    assert [written.index(mark) for mark in marks] == sorted(written.index(mark) for mark in marks)
    assert [ax for ax in fig.axes if str(ax.get_gid()).startswith("top")] == [ax]


def test_a_description_that_was_drawn_twice_is_one_bar_of_both_weights(make_run):
    state = dvp_state(1, m=2, v=1, sentences=[["the same sentence", "the same sentence"]])
    fig = figure("prm", make_run("DVPcls", state, ["only"]))
    assert [bar.get_width() for bar in axes(fig, "top only")[0].patches] == pytest.approx([1.0])


def test_by_default_every_prompt_is_shown_with_classes_that_lean_on_it(make_run):
    from tools.plotting import prm
    from tools.runs.run import Run

    state = dvp_state(30)
    shown = prm.read(Run(make_run("DVPcse", state, [f"class {c}" for c in range(30)]))).telling(8)
    shares = state["bank.mapping.weights"].view(30, 3, 6).sum(-1)
    assert len(shown) == 8 and set(shares.argmax(0).tolist()) <= set(shown)


def test_prm_for_a_column_of_a_paper_has_three_classes_the_same_above_and_below(make_run):
    fig = figure("prm", make_run("DVPcse", dvp_state(30), [f"class {c}" for c in range(30)]), "paper")
    (table,) = axes(fig, "shares")
    named = {label.get_text() for label in table.get_yticklabels()}
    assert {ax.get_gid() for ax in fig.axes if str(ax.get_gid()).startswith("top")} == {f"top {name}" for name in named}
    assert len(named) == 3


def test_a_line_of_facts_breaks_between_them_only():
    from tools.plotting.style import wrap

    lines = wrap("DAPT on digits  ·  16 shots  ·  seed 1  ·  94.3 % on the test split  ·  CLIP tiny", 3, 9)
    assert [line.replace("\xa0", " ").strip(" ·") for line in lines] == [
        "DAPT on digits  ·  16 shots  ·  seed 1", "94.3 % on the test split  ·  CLIP tiny"]


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


@pytest.mark.parametrize(("C", "name"), [(2, "{}"), (40, "{} BMW Silverado 2500HD Regular Cab, $5 or $6")])
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
    assert "Runs below it:" in refused(["prm", tmp_path], capsys)
    assert "is a run of CoOp" in refused(["prm", other], capsys)
    assert "is a run of CoOp" in refused(["prompts", other], capsys)
    assert "Did you mean three?" in refused(["prm", dvp, "--classes", "thre"], capsys)
    assert "it has those of 2" in refused(["prm", dvp, "--epoch", 7], capsys)
    assert "x.gif" in refused(["prm", dvp, "--out", "x.gif"], capsys)
    assert "Give one of the two" in refused(["prm", dvp, "--out", "x.pdf", "--format", "svg"], capsys)
    assert "has no checkpoint" in refused(["prm", make_run("DVPcse", folder="gone")], capsys)
    assert "continue it" in refused(["prm", make_run("DVPcse", folder="cut", record=False)], capsys)
    four = make_run("DVPcse", dvp_state(3), ["one", "two"], folder="changed")
    assert "descriptions of 3 classes" in refused(["prm", four], capsys)


def test_the_curves_of_a_training_are_those_of_its_log(trained):
    fig = figure("curves", trained)
    legible(fig)
    log = (trained / "log.txt").read_text()
    lines = [line for line in log.splitlines() if re.match(r"epoch \[\d+/2\] batch \[(\d+)/\1\] ", line)]
    assert len(lines) == 2                                                  # of the last batch of each epoch
    (loss,), (accuracy,), (rate,) = (axes(fig, gid) for gid in ("loss", "accuracy, %", "learning rate"))
    drawn = {line.get_gid(): line for line in (*loss.lines, *accuracy.lines)}
    assert all(ax.get_xlabel() == "epoch" for ax in fig.axes)
    for name, line in (("loss", drawn["loss"]), ("acc", drawn["training batches"])):
        means = [float(text.split(f" {name} ")[1].split("(")[1].split(")")[0]) for text in lines]
        assert line.get_ydata() == pytest.approx(means, abs=1e-3) and list(line.get_xdata()) == [1, 2]
    last = [float(text.split(" loss ")[1].split()[0]) for text in lines]
    batches = drawn["loss batches"]
    assert [batches.get_ydata()[i] for i in (len(batches.get_ydata()) // 2 - 1, -1)] == pytest.approx(last, abs=1e-3)
    assert rate.lines[0].get_ydata()[-1] == pytest.approx(float(lines[-1].split(" lr ")[1].split()[0]), rel=1e-3)
    assert drawn["test split"].get_ydata() == pytest.approx(
        [json.loads((trained / "results.json").read_text())["metrics"]["accuracy"]])


def test_a_run_without_curves_says_so(make_run, capsys):
    assert "no training curves" in refused(["curves", make_run("CoOp")], capsys)


@pytest.fixture
def results(tmp_path):
    """CoOp on two datasets at three numbers of shots, a seed missing at one; base-to-new runs are not in the figure."""
    write_result(tmp_path, "dtd", "CoOp", "vit_b16_16shots@new", 1, 10, 16)
    for d, dataset in enumerate(("dtd", "eurosat")):
        write_result(tmp_path, dataset, "ZeroshotCLIP", "vit_b16", 1, 40.0 + d, 0)
        for shots in (1, 4, 16):
            for seed in (1, 2) if (dataset, shots) != ("eurosat", 4) else (1,):
                write_result(tmp_path, dataset, "CoOp", f"vit_b16_{shots}shots", seed, 50 + shots + 4 * seed + d, shots)
    return tmp_path


def test_few_shot_curves_are_means_and_spreads_over_seeds(results):
    from tools.plotting import fewshot
    from tools.plotting.style import THEMES, context
    from tools.runs.recipe import load_recipe

    rows = selected(results, seeds=[1, 2])
    with context(THEMES["light"]):
        fig = fewshot.draw(rows, THEMES["light"])
        fig.draw_without_rendering()
    legible(fig)
    (ax,), (eurosat,), (average,) = (axes(fig, gid) for gid in ("dtd", "eurosat", "average"))
    lines = {line.get_gid(): line for line in ax.lines}
    assert list(lines["CoOp"].get_xdata()) == [1, 4, 16] and list(lines["CoOp"].get_ydata()) == [57, 60, 72]
    assert list(lines["zero-shot"].get_ydata()) == [40.0] and list(lines["zero-shot"].get_xdata()) == [0]
    band = ax.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in band.tolist()} >= {(1.0, 55.0), (1.0, 59.0), (16.0, 70.0), (16.0, 74.0)}
    known = load_recipe("coop").row("dtd")["published"]
    known = {shots: value for shots, value in known.items() if value is not None}
    assert dict(zip(lines["CoOp published"].get_xdata(), lines["CoOp published"].get_ydata())) == known
    lacking = next(line for line in eurosat.lines if line.get_gid() == "CoOp lacks seeds")
    assert list(lacking.get_xdata()) == [4]
    assert list({line.get_gid(): line for line in average.lines}["CoOp"].get_ydata()) == [57.5, (60 + 59) / 2, 72.5]
    assert ax.get_xlabel() == "shots per class"


def test_the_legend_says_published_only_where_a_panel_shows_one(tmp_path):
    write_result(tmp_path, "digits", "CoOp", "tiny_4shots", 1, 50, 4)
    fig = figure("fewshot", tmp_path, published="all")
    assert [text.get_text() for text in fig.legends[0].texts] == ["CoOp"]


def test_every_method_has_a_mark_a_dash_and_a_lightness_of_its_own_in_a_paper():
    from tools.plotting.style import THEMES

    def lightness(colour):                                          # CIE L*
        channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        y = sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear))
        return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y

    looks = [THEMES["paper"].look(i) for i in range(7)]
    grey = sorted(lightness(look["color"]) for look in looks)
    assert min(b - a for a, b in zip(grey, grey[1:])) >= 6 and grey[-1] <= 72
    assert len({look["marker"] for look in looks}) == len({str(look["linestyle"]) for look in looks}) == 7


@pytest.mark.parametrize("name", ["light", "dark", "paper"])
def test_two_methods_of_one_colour_have_different_marks_and_dashes(name):
    from tools.plotting.style import THEMES

    looks = [THEMES[name].look(i) for i in range(10)]
    assert len({look["marker"] for look in looks}) == 10
    assert len({(look["color"], str(look["linestyle"])) for look in looks}) == 10


def test_five_panels_of_a_few_shot_figure_are_three_and_two(tmp_path):
    for dataset in ("digits", "shapes", "dtd", "eurosat"):
        write_result(tmp_path, dataset, "CoOp", "tiny_4shots", 1, 50, 4)
    fig = figure("fewshot", tmp_path)
    assert fig.axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 3)


@pytest.mark.parametrize("width", [3.25, 6.875])
def test_a_few_shot_figure_for_a_paper_has_its_width_and_readable_letters(results, width):
    from dataclasses import replace

    from tools.plotting.style import THEMES

    for name in ("DAPT", "VPT"):
        write_result(results, "dtd", name, "vit_b16_16shots", 1, 70, 16)
    fig = figure("fewshot", results, replace(THEMES["paper"], width=width, band=False))
    legible(fig, paper=True)
    assert fig.get_figwidth() == width and not [c for ax in fig.axes for c in ax.collections]


def test_a_pdf_for_a_paper_has_its_fonts_embedded_and_its_width(results, tmp_path, capsys):
    pdf = tmp_path / "fig.pdf"
    assert plot.cli(["curves", str(results), "--paper", "--width", "5.5", "--serif", "-o", str(pdf)]) == 0
    content = pdf.read_bytes()
    assert b"/FontFile2" in content and b"/Type3" not in content
    box = [float(x) for x in re.search(rb"/MediaBox \[ ([\d. ]+) \]", content)[1].split()]
    assert box[2] == pytest.approx(5.5 * 72)


def test_filters_choose_methods_of_a_figure_and_the_run_of_another(results, tmp_path, capsys, make_run):
    write_result(results, "dtd", "DAPT", "vit_b16_16shots", 1, 70, 16)
    from tools.plotting import fewshot

    args = plot.parser().parse_args(["curves", str(results), "--trainer", "coop", "--dataset", "dtd", "--shots", "4",
                                     "--seed", "2", "--config", "vit"])
    found = fewshot.read(rows_below([results], args))
    assert {(p.dataset, p.name, p.shots, p.mean) for p in found[found.shots > 0].itertuples() if not p.published} == {
        ("dtd", "CoOp", 4, 62)}
    assert "Did you mean DAPT?" in refused(["curves", results, "--trainers", "DATP"], capsys)
    run = results / "dtd" / "CoOp" / "vit_b16_4shots" / "seed2"
    config = (make_run("CoOp", folder="other") / "config.yaml").read_text()
    for seed in (1, 2):
        (run.with_name(f"seed{seed}") / "config.yaml").write_text(config)
    words = ["reliability", str(results), "--trainer", "CoOp", "--dataset", "dtd", "--shots", "4"]
    assert str(run) in (err := refused(words, capsys)) and "leave 2" in err and "--seeds" in err
    assert plot.the_run(plot.parser().parse_args([*words, "--seeds", "2"])).folder == run


@pytest.mark.parametrize(("words", "hint"), [
    (["curve", "x"], "Did you mean curves?"), (["curves", "x", "--traner", "a"], "Did you mean --trainer"),
    (["confusion", "x", "--papr"], "Did you mean --paper?")])
def test_an_unknown_figure_or_flag_names_the_nearest(words, hint, capsys):
    with pytest.raises(SystemExit) as ended:
        plot.cli(words)
    assert ended.value.code == 2 and hint in capsys.readouterr().err


@pytest.mark.parametrize("words", [["curves", "--paper", "--width", "wide"], ["curves", "--paper", "--width", "0.2"],
                                   ["curves", "--paper", "--style", "dark"], ["prm", "--top", "0"]])
def test_a_flag_that_says_nothing_is_refused(words, results, capsys):
    with pytest.raises(SystemExit) as ended:
        plot.cli([words[0], str(results), *words[1:]])
    assert ended.value.code == 2 and words[-1] in capsys.readouterr().err
    assert "--paper" in refused(["curves", results, "--width", "column"], capsys) and not (results / "plots").exists()


def test_curves_of_one_trainer_are_named_by_what_sets_them_apart(tmp_path):
    from tools.plotting import fewshot

    for variant in ("", "-TRAINER.DAPT.TXT_BETA=0.0", "-OPTIM.LR=0.1"):
        write_result(tmp_path, "dtd", "DAPT", f"vit_b16_4shots{variant}", 1, 60, 4)
    write_result(tmp_path, "dtd", "CoOp", "vit_b16_4shots", 1, 50, 4)
    write_result(tmp_path, "dtd", "CoOp", "rn50_4shots", 1, 50, 4)
    names = set(fewshot.read(selected(tmp_path), "none").name)
    assert names == {"DAPT", "DAPT CE + intra", "DAPT LR=0.1", "CoOp vit_b16", "CoOp rn50"}


def test_runs_of_two_folders_are_never_points_of_one_line(tmp_path):
    from tools.plotting import fewshot

    for place, plus in (("new", 0), ("old", 5)):
        for dataset in ("dtd", "eurosat"):
            for shots in (4, 16):
                write_result(tmp_path / place, dataset, "CoOp", f"vit_b16_{shots}shots", 1, 50 + shots + plus, shots)
            write_result(tmp_path / place, dataset, "ZeroshotCLIP", "vit_b16", 1, 40 + plus, 0)
    found = fewshot.average(fewshot.read(selected(tmp_path)))
    measured = found[~found.published].set_index(["dataset", "name", "shots"])["mean"]
    for name, plus in (("new", 0), ("old", 5)):
        for dataset in ("dtd", "eurosat", "average"):
            assert [measured[dataset, f"CoOp in {name}", k] for k in (4, 16)] == [54 + plus, 66 + plus]
            assert measured[dataset, f"zero-shot in {name}", 0] == 40 + plus
    assert set(found[found.published].name) <= {"CoOp in new", "zero-shot in new"}


def test_published_curves_of_methods_that_were_not_run_are_drawn_if_asked_for(tmp_path):
    from tools.plotting import fewshot

    write_result(tmp_path, "dtd", "DAPT", "vit_b16_4shots", 1, 60, 4)
    own, every, none = (fewshot.read(selected(tmp_path), published) for published in ("own", "all", "none"))
    assert "CoOp" not in set(own.name) and not none.published.any()
    assert set(every[(every.name == "CoOp") & every.published].shots) == {4, 16}


def test_confusion_counts_images_and_testing_again_gives_the_same(trained, caplog):
    from tools.plotting import confusion
    from tools.runs.run import Run

    names, counts = confusion.read(Run(trained))
    record = json.loads((trained / "results.json").read_text())
    assert counts.sum() == record["num_test"] and len(names) == 4
    assert 100 * counts.trace() / counts.sum() == pytest.approx(record["metrics"]["accuracy"])
    fig = figure("confusion", trained)
    legible(fig)
    (image,) = axes(fig, None)[0].images
    torch.testing.assert_close(torch.tensor(image.get_array().filled(0)), counts.double())
    assert image.get_clim() == (0, counts.max()) and f"n = {counts.sum()}" in " ".join(t.get_text() for t in fig.texts)
    (trained / "predictions.csv").unlink()
    torch.testing.assert_close(confusion.read(Run(trained))[1], counts)
    assert "Tested again" not in caplog.text
    record["metrics"]["accuracy"] += 1
    (trained / "results.json").write_text(json.dumps(record))
    confusion.read(Run(trained))
    assert "Tested again" in caplog.text


def test_one_image_alone_is_no_frequent_mistake():
    from tools.plotting.confusion import mistakes

    counts = torch.tensor([[5, 1, 3], [0, 9, 1], [2, 0, 7]])
    assert mistakes(["a", "b", "c"], counts, 5) == [(3, 9, "a", "c"), (2, 9, "c", "a")]
    assert mistakes(["a", "b"], torch.tensor([[5, 1], [1, 9]]), 5) == []


def test_a_file_that_cannot_be_written_is_named(results, capsys):
    (results / "file").touch()
    assert str(results / "file") in refused(["curves", results, "-o", results / "file" / "curves.png"], capsys)


def test_the_readmes_commands_are_understood():
    import shlex

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(line, comments=True)[2:] for line in re.findall(r"^python tools/plot\.py .*$", text, re.M)]
    assert {plot.parser().parse_args(words).figure for words in commands} >= {"prm", "prompts", "curves", "confusion"}


@pytest.mark.parametrize("where", ["/photos/fruit", "/photos/fruit.csv"])
def test_ones_own_images_are_called_by_their_folder(make_run, where):
    from tools.runs.run import Run

    folder = make_run("CoOp")
    (folder / "results.json").write_text(json.dumps({"finished": True, "mode": "train", "dataset": "ImageDir",
                                                     "trainer": "CoOp"}))
    run = Run(folder)
    run.settings["DATASET"].update(NAME="ImageDir", DIR=where)
    assert run.dataset_name == "fruit" and run.summary.startswith("CoOp on fruit ")
    run.cell = replace(run.cell, tag="@from_digits")
    assert run.summary.startswith("CoOp on fruit from digits  ·")
    assert Run(make_run("CoOp", folder="other")).dataset_name != "fruit"
