"""What is drawn are the run's numbers; every name can be read; what cannot be drawn is told in one paragraph."""
import json
import subprocess
import sys

import pytest
import torch

from tools import inputs, plot, train
from tools.recipes import ROOT

SENTENCE = "a wide chromed grille with round lamps, seen from the side in front of a hedge, "


@pytest.fixture
def make_run(make_cfg, tmp_path):
    """make_run("DVPcse", state) -> folder of a run as tools/train.py leaves it, with that as its learned prompts."""
    def make(trainer, state=None, names=None, epoch=2, record=True, folder="run", opts=()):
        cfg = make_cfg(trainer, *opts, output=tmp_path / folder)
        path = tmp_path / folder
        path.mkdir()
        (path / "config.yaml").write_text(cfg.dump())
        inputs.write(path, train.parser().parse_args(["--trainer", trainer, "--seed", "1"]))
        if state is not None:
            (path / "prompt_learner").mkdir()
            torch.save({"state_dict": state, "epoch": epoch}, path / "prompt_learner" / f"model.pth.tar-{epoch}")
            (path / "prompt_learner" / "checkpoint").write_text(f"model.pth.tar-{epoch}\n")
        if names:
            (path / "descriptions.json").write_text(json.dumps({name: [] for name in names}))
        if record:
            (path / "results.json").write_text(json.dumps(
                {"finished": True, "mode": "train", "split": "test", "metrics": {"accuracy": 81.25}}))
        return path

    return make


def dvp_state(C, m=6, v=3, sentences=None, side=32, inner=24):
    """A checkpoint of v borders and C classes with m descriptions for each cause, drawn from a fixed stream."""
    rng = torch.Generator().manual_seed(C)
    weights = torch.rand(C, v * m, generator=rng) ** 6
    sentences = sentences or [[f"{SENTENCE[i % 9:] * (1 + i % 2)}({c}.{i})" for i in range(v * m)] for c in range(C)]
    return {**{f"pixel.{p}.program": 3 * torch.randn(3, side ** 2 - inner ** 2, generator=rng) for p in range(v)},
            "bank.prompt_of": torch.arange(v).repeat_interleave(m).repeat(C, 1),
            "bank.text": torch.frombuffer(bytearray(json.dumps(sentences).encode()), dtype=torch.uint8),
            "bank.mapping.weights": weights / weights.sum(1, keepdim=True)}


def figure(name, folder, **options):
    import importlib

    from tools.plotting.run import Run
    from tools.plotting.style import THEMES, context

    with context(THEMES["light"]):
        return importlib.import_module(f"tools.plotting.{name}").draw(Run(folder), THEMES["light"], **options)


def axes(fig, gid):
    return [ax for ax in fig.axes if ax.get_gid() == gid]


def texts(fig):
    from matplotlib.text import Text

    return [text for text in fig.findobj(Text) if text.get_text().strip() and text.get_visible()]


def refused(argv, capsys):
    assert plot.cli([str(word) for word in argv]) == 2
    out, err = capsys.readouterr()
    assert not out and "Traceback" not in err and len(err.strip().splitlines()) == 1
    return err


def test_a_trained_run_is_drawn_into_its_folder(make_cfg, capsys, tmp_path):
    from dassl.engine import build_trainer

    cfg = make_cfg("DVPcse")
    build_trainer(cfg).train()
    run = tmp_path / "run"
    (run / "config.yaml").write_text(cfg.dump())
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
    from tools.plotting.run import Run

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


def legible(fig):
    """All text lies on the page, and no two overlap by more than a hair."""
    renderer = fig.canvas.get_renderer()
    fig.draw(renderer)
    boxes = [(text.get_window_extent(renderer), text.get_text()) for text in texts(fig)]
    wide, high = fig.bbox.width, fig.bbox.height
    outside = [word for box, word in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > wide or box.y1 > high]
    assert not outside, outside
    boxes.sort(key=lambda pair: pair[0].x0)
    for i, (box, word) in enumerate(boxes):
        for other, second in boxes[i + 1:]:
            if other.x0 > box.x1:
                break
            across, up = min(box.x1, other.x1) - other.x0, min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across < 1.5 or up < 0.3 * min(box.height, other.height), (word, second)
    assert len(boxes) > 3


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
