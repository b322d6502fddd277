"""The page of a folder of results: one file, no network, everything of others escaped, numbers those of the runs."""
import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from figures import cell_in, refused, selected, write_result

from tools import plot
from tools.plotting.report import render, runs, tables
from tools.plotting.report.pictures import picture
from tools.runs.folder import RunFolder
from tools.runs.run import Run

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """A page as its tags, the text of its tables and what it would fetch.

    Attributes:
        tags: [(tag, attributes)]. tables: {caption: rows of cells as text}.
    """

    def __init__(self, html):
        super().__init__()
        self.tags, self.tables, self.open, self.ids = [], {}, [], set()
        self._rows, self._caption = [], ""
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data):
        if "caption" in self.open:
            self._caption += data
        elif "th" in self.open or "td" in self.open:
            self._rows[-1][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def results(tmp_path):
    """Two methods on two datasets, one seed collapsed, one cell and one seed missing."""
    for d, dataset in enumerate(("dtd", "eurosat")):
        write_result(tmp_path, dataset, "ZeroshotCLIP", "vit_b16", 1, 40.0 + d, 0)
        for shots in (4, 16):
            for seed in (1, 2):
                write_result(tmp_path, dataset, "CoOp", f"vit_b16_{shots}shots", seed, 50 + shots + 4 * seed, shots)
                if (dataset, shots) != ("eurosat", 4):
                    write_result(tmp_path, dataset, "DAPT", f"vit_b16_{shots}shots", seed, 60 + shots, shots)
    return tmp_path


def page_of(folder, **options):
    return Page(render(folder, selected(folder), [], **options))


def test_tables_have_means_spreads_published_values_and_differences(results):
    from tools.runs.recipe import load_recipe

    rows = page_of(results).tables["Few-shot accuracy of CoOp (vit_b16)"]
    assert [cell.strip() for cell in rows[0]] == ["dataset", "zero-shot", "4 shots", "16 shots"]
    dtd = next(i for i, row in enumerate(rows) if row[0] == "dtd")
    assert [" ".join(cell.split()) for cell in rows[dtd]] == ["dtd", "40.0", "60.0 ± 2.0", "72.0 ± 2.0"]
    known = load_recipe("coop").row("dtd")["published"]
    assert rows[dtd + 1][2:] == [f"{known[4]:.1f}", f"{known[16]:.1f}"]
    assert rows[dtd + 2][2:] == [f"{value - known[shots]:+.1f}" for shots, value in ((4, 60), (16, 72))]


def test_the_best_of_a_column_stands_out(results):
    html = render(results, selected(results), [])
    section = html.split("Accuracy at 16 shots per class")[-1].split("</table>")[0]
    bold = re.findall(r"<th scope=\"row\">(\w+)</th>(.*?)</tr>", section, re.DOTALL)
    assert [name for name, cells in bold if "<b>" in cells] == ["DAPT"]


def test_a_rule_is_drawn_between_the_datasets_of_a_table_and_above_the_averages_once(results):
    from tools.plotting.report.tables import of_grid
    from tools.tables import layouts

    grids = layouts.build(selected(results))
    assert any(line.rule for grid in grids for line in grid.lines)
    assert all(("rule" in kind.split()) == line.rule for grid in grids for kind, line in zip(
        of_grid(grid).kinds, grid.lines))


def test_runs_that_were_asked_for_and_did_not_finish_are_listed_with_the_end_of_their_log(results):
    failed = results / "dtd" / "CoOp" / "vit_b16_16shots" / "seed3"
    failed.mkdir()
    (failed / "inputs.json").write_text(json.dumps({"flags": {"trainer": "CoOp", "seed": 3}, "opts": {}, "files": {},
                                                    "cell": cell_in(failed, 16, {}).as_dict()}))
    (failed / "log.txt").write_text(f"epoch 1\nStopped: Traceback\nRuntimeError: {EVIL}\n")
    rows = selected(results, trainers=["CoOp"], datasets=["dtd"], shots=[16], seeds=[1, 2, 3, 4])
    found = [(u["name"], u["seed"], u["state"]) for u in tables.unfinished(rows)]
    assert found == [("CoOp vit_b16 dtd 16 shots", 3, "failed"), ("CoOp vit_b16 dtd 16 shots", 4, "not begun")]
    html = render(results, rows, [])
    assert "RuntimeError: &lt;script" in html and "Unfinished runs" in html and str(failed) in html
    (failed / "log.txt").write_text("epoch 1\n")
    rows = selected(results, trainers=["CoOp"], datasets=["dtd"], shots=[16])
    assert [u["state"] for u in tables.unfinished(rows)] == ["not finished"]


def test_nothing_that_nobody_asked_for_is_called_unfinished(results):
    html = render(results, selected(results), [])       # DAPT has no run on eurosat at 4 shots
    assert "nfinished" not in html


def test_a_page_shows_only_the_rows_that_were_asked_for_and_opens_with_named_runs(results, make_run):
    rows = selected(results, trainers=["DAPT"], datasets=["dtd"])
    html = render(results, rows, [runs.Looked("run-1", "my run", "folder")], runs_first=True)
    assert "CoOp" not in html and "eurosat" not in html
    assert html.index('id="run-1"') < html.index('id="tables"')


def test_the_page_is_one_file_that_fetches_nothing_and_runs_nothing(results):
    html = render(results, selected(results), [])
    page = Page(html)
    assert {name for name, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "form", "base"})
    for name, attributes in page.tags:
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "srcset"):
            assert attributes.get(key, "data:image/").startswith("data:image/"), name
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import|https?://", re.sub(r"base64,[\w+/=]+", "", html))
    assert "default-src 'none'" in str(page.all("meta"))


def test_pictures_are_there_for_light_and_dark_and_say_what_they_show(results):
    page = page_of(results)
    images = page.all("img")
    assert [image["class"] for image in images] == ["light", "dark"] and images[0]["src"] != images[1]["src"]
    assert all(image["alt"].strip() and int(image["width"]) > 100 for image in images)
    drawing = base64.b64decode(images[0]["src"].split(",")[1])
    assert b"<svg" in drawing and b"href=\"http" not in drawing


def test_tables_have_captions_and_header_cells_and_every_link_leads_somewhere(results):
    page = page_of(results)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"].lstrip("#") for link in page.all("a")} <= ids
    assert len(page.tables) == len(page.all("table")) and all(page.tables)
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))
    regions = [a for name, a in page.tags if name == "div" and a.get("class") == "scroll"]
    assert regions and all(r["tabindex"] == "0" and r["role"] == "region" and r["aria-label"] for r in regions)
    assert page.all("html")[0]["lang"] == "en" and len(page.all("h1")) == 1


def test_names_paths_titles_and_logs_cannot_become_markup(tmp_path):
    output = tmp_path / EVIL.replace("/", "_")
    write_result(output, f"my{EVIL}".replace("/", "_"), "CoOp", f"tiny_4shots-X.Y={EVIL}".replace("/", "_"), 1, 50, 4)
    looked = runs.Looked("run-1", EVIL, EVIL, [(EVIL, None, [runs.worst_classes([EVIL, "b"], torch.tensor(
        [[5, 5], [9, 0]]))], EVIL)], config=EVIL, command=EVIL, record=EVIL)
    html = render(output, selected(output), [looked], title=EVIL)
    page = Page(html)
    assert "script" not in {name for name, _ in page.tags} and EVIL not in html
    assert [row[0] for row in page.tables["Worst classes"][1:]] == ["b", EVIL]


def test_the_worst_classes_are_those_recognised_least_with_their_most_frequent_mistake():
    counts = torch.tensor([[9, 1, 0, 0], [3, 5, 2, 0], [0, 0, 0, 0], [0, 0, 0, 4]])
    table = runs.worst_classes(["a", "b", "no images", "right"], counts)
    assert table.lines == [["b", "10", "50.0", "a (3 images)"], ["a", "10", "90.0", "–"]]
    assert runs.worst_classes(["a"], torch.ones(1, 1)).notes


def test_a_run_is_shown_with_all_that_it_has(trained, tmp_path, capsys):
    output = tmp_path / "out" / "toy" / "CoOp" / "tiny_4shots"
    output.mkdir(parents=True)
    trained.rename(output / "seed1")
    assert plot.cli(["report", str(tmp_path / "out"), "-o", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    measured = page.tables["Measured on these features"]
    assert measured[0] == ["measurement", "before", "after", "change", "meaning"] and len(measured) == 7
    before, after, change = map(float, measured[1][1:4])
    assert change == pytest.approx(after - before, abs=2e-3)
    assert "learned context" in page.tables and "Worst classes" in page.tables
    assert len(page.all("img")) == 2 * 5                    # few-shot, training, maps, confusion, reliability
    settings = "".join((tmp_path / "page.html").read_text().split("<pre")[1:])
    assert "MAX_EPOCH: 2" in settings
    without = tmp_path / "fast.html"
    assert plot.cli(["report", str(tmp_path / "out"), "-o", str(without), "--no-test", "--title", "Mine"]) == 0
    fast = Page(without.read_text(encoding="utf-8"))
    assert "Measured on these features" not in fast.tables and "Worst classes" in fast.tables
    assert "<title>Mine</title>" in without.read_text(encoding="utf-8")


def test_what_a_run_lacks_is_told_in_its_place(make_run):
    folder = make_run("CoOp", {"ctx": torch.zeros(4, 64)}, opts=["DATASET.ROOT", "nowhere"])
    looked = runs.look_into(Run(folder), 1, test=False, say=lambda words: None)
    assert {heading: bool(remark) for heading, _, _, remark in looked.parts} == {
        "Training curves": True, "Words nearest to the learned context": False}
    assert "no training curves" in looked.parts[0][3]


def test_runs_are_chosen_evenly_over_methods_then_datasets(results):
    for folder in results.glob("*/*/*/seed*"):
        (folder / "config.yaml").write_text("{}")
    chosen = [Path(*folder.parts[-4:-1]) for folder in runs.choose_runs(selected(results), ())]
    assert chosen == [Path("dtd/CoOp/vit_b16_16shots"), Path("dtd/DAPT/vit_b16_16shots"),
                      Path("eurosat/CoOp/vit_b16_16shots"), Path("eurosat/DAPT/vit_b16_16shots")]
    assert runs.choose_runs(selected(results), [Path("mine")]) == [Path("mine")]


def test_environments_and_settings_that_differ_are_told(tmp_path):
    found = tables.environments([{"versions": {"torch": "2.9"}, "device": "cpu"},
                                 {"versions": {"torch": "2.8"}, "device": "cpu", "backbone": {"name": "tiny"}}])
    assert found.lines == [["torch", "2.9 (1 of 2 runs); 2.8 (1 of 2 runs)"], ["device", "cpu"],
                           ["backbone", "tiny (1 of 2 runs)"]]
    for name, rate in (("A", 0.1), ("B", 0.1), ("C", 0.2)):
        (tmp_path / name).mkdir()
        own = f"{{NAME: {name}, A: {{KNOB: {ord(name)}}}, D: {{KNOB: {rate}}}}}"       # A is a trainer here, D none
        (tmp_path / name / "config.yaml").write_text(f"SEED: {ord(name)}\nOPTIM: {{LR: {rate}, NAME: sgd}}\n"
                                                     f"TRAINER: {own}\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("a: [")
    assert tables.settings_that_differ(map(RunFolder, sorted(tmp_path.iterdir()))).lines == [
        [key, "0.1 (A, B); 0.2 (C)"] for key in ("OPTIM.LR", "TRAINER.D.KNOB")]


def test_a_picture_leaves_out_what_the_page_says_itself():
    from tools.plotting.style import header, sheet

    drawn = []

    def draw(theme):
        figure = sheet(theme, 3, 2)
        header(figure, theme, "Title", ["run", "what the marks are"])
        drawn.append(figure)
        return figure

    shown = picture(draw, "alt", ("title", "line 0"))
    assert [[text.get_text() for text in figure.texts] for figure in drawn] == [["what the marks are"]] * 2
    assert shown.light != shown.dark


def test_what_cannot_be_reported_is_told_in_one_paragraph(tmp_path, results, capsys):
    (tmp_path / "empty").mkdir()
    assert "No finished run" in refused(["report", tmp_path / "empty"], capsys)
    assert "no folder" in refused(["report", tmp_path / "nowhere"], capsys)
    assert "x.png" in refused(["report", results, "-o", "x.png"], capsys)
    assert "A run is named by its folder" in refused(["report", results, "--runs", tmp_path / "empty"], capsys)
    assert not (results / "report.html").exists()
