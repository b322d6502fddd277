"""mkdocs hooks: pages that lie outside docs/ join the site, and links to and from them follow."""
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
           "trainers/README.md": "trainers.md", "datasets/README.md": "datasets.md",
           "dassl/COMPATIBILITY.md": "compatibility.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add the pages of OUTSIDE, their links rewritten."""
    for path, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=rewritten((ROOT / path).read_text(encoding="utf-8"), path)))
    return files


def on_page_markdown(markdown, page, **_):
    """Rewrite the links of a page of docs/ that lead out of it."""
    return markdown if page.file.src_uri in OUTSIDE.values() else rewritten(markdown, f"docs/{page.file.src_uri}")


def rewritten(markdown: str, path: str) -> str:
    """The text of a file of the repository with links as the site has them; a file without a page is only named.

    Raises:
        FileNotFoundError: a link leads nowhere.
    """
    folder = posixpath.dirname(path)

    def link(match: re.Match) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target:
            return match[0]
        target = posixpath.normpath(posixpath.join(folder, target))
        if not (ROOT / target).exists():
            raise FileNotFoundError(f"{path} links to {target}, which does not exist.")
        if target in OUTSIDE:
            return f"[{words}]({OUTSIDE[target]}{anchor})"
        return f"[{words}]({target.removeprefix('docs/')}{anchor})" if target.startswith("docs/") else f"`{target}`"

    text = _LINK.sub(link, markdown)
    return re.sub(r"(!\[[^\]]*\]\()docs/", r"\1", text) if folder == "" else text
