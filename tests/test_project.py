"""The project's own files: the site of docs/, the Dockerfile, and what contributors and citing people read."""
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def hooks():
    pytest.importorskip("mkdocs", reason='needs pip install -e ".[docs]"')
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(nav):
    for entry in nav:
        for value in entry.values():
            yield from pages_of(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_sites_navigation_once():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = list(pages_of(site["nav"]))
    there = {path.name for path in (ROOT / "docs").glob("*.md")} | set(hooks().OUTSIDE.values())
    assert len(pages) == len(set(pages)) >= 15 and set(pages) == there


def test_links_of_the_site_stay_on_it_and_lead_somewhere():
    module = hooks()
    text = "[a](../trainers/README.md#x) [b](tables.md) [c](../setup.py) [d](https://example.org/x) ![e](docs/f.png)"
    assert module.rewritten(text, "docs/runs.md") == \
        "[a](trainers.md#x) [b](tables.md) `setup.py` [d](https://example.org/x) ![e](docs/f.png)"
    assert module.rewritten("[b](docs/tables.md) ![e](docs/f.png)", "README.md") == "[b](tables.md) ![e](f.png)"
    with pytest.raises(FileNotFoundError, match="docs/gone.md"):
        module.rewritten("[x](gone.md)", "docs/runs.md")
    for path in [*module.OUTSIDE, *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]:
        module.rewritten((ROOT / path).read_text(encoding="utf-8"), path)


@pytest.mark.slow
def test_the_site_is_built_strictly_without_a_network(tmp_path):
    pytest.importorskip("material", reason='needs pip install -e ".[docs]"')
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    fetched = re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?(https?://[^"'>]+)""", page)
    assert not fetched and "dassl-prompts" in page


def test_the_dockerfile_copies_what_is_there_and_starts_the_command():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    copied = [word for name, words in steps if name == "COPY" for word in words.split()[:-1]]
    assert copied and all((ROOT / name).exists() for name in copied)
    assert dict(steps)["ENTRYPOINT"] == '["dassl-prompts"]'
    code = re.search(r'python -c "(.+?)"', " ".join(lines)).group(1)
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "torch>=" in said and "uvicorn>=" in said
    volumes = dict(steps)["VOLUME"]
    assert all(f"{folder}" in volumes for folder in ("/data", "/output", "/cache"))


def test_the_citation_is_valid_and_the_readme_has_it_too():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= citation.keys()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert citation["title"] in readme and citation["authors"][0]["name"] in readme
