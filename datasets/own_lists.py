"""Images of your own: folders, CSV and JSON lists, files of class names, recognised and checked."""
from __future__ import annotations

import csv
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from dassl.utils import UserError
from dassl.utils.registry import nearest

from .own_folders import LAYOUT, SPLITS, SUFFIXES, Row, read_tree

logger = logging.getLogger(__name__)

_COLUMNS = {"path": ("path", "image", "file", "filename", "filepath", "impath", "image_path"),
            "label": ("label", "target", "class_id", "class_index"),
            "classname": ("classname", "class_name", "class", "name"), "split": ("split", "set", "subset")}
_PAIR_COLUMNS = {"path": (*_COLUMNS["path"], "file_name"), "caption": ("caption", "title", "text", "sentence"),
                 "split": _COLUMNS["split"]}


def read_own(path: Path, test_only: bool = False) -> list[Row]:
    """The images of a folder or of a list, in an order that depends on their names only.

    Args:
        test_only: nothing is learned from them, so train/ may be missing.
    Raises:
        UserError: nothing there, no images, or something that does not fit together.
    """
    if path.is_dir():
        rows = list(read_tree(path, test_only))
    elif path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".txt", ".json"):
        rows = list(_list(path))
    elif path.exists():
        raise UserError(f"{path} is neither a folder nor a .csv or .json file. {LAYOUT}")
    else:
        siblings = os.listdir(path.parent) if path.parent.is_dir() else []
        raise UserError(f"There is nothing at {path}.{nearest(path.name, siblings)} {LAYOUT}")
    if not rows and path.is_file():
        raise UserError(f"{path} lists no images. The first line of a CSV names its columns, path and label or "
                        "classname, and split if images have one; each line below is an image. A JSON is a list of "
                        "[path, label, classname].")
    if not rows:
        raise UserError(f"{path} holds no images of a known kind ({', '.join(sorted(SUFFIXES))}). {LAYOUT}")
    return sorted(rows, key=lambda row: row.path)


def _list(file: Path) -> Iterator[Row]:
    """Rows of a list; paths count from the folder that the list lies in."""
    records = _with_known_columns(file, _json(file) if file.suffix.lower() == ".json" else _csv(file))
    by_number = all(_is_whole(record.get("label")) for record in records)
    names: dict[int | str, str] = {}
    seen: dict[str, tuple[int | str, str]] = {}
    for number, record in enumerate(records, 1):
        where = f"{file}, image {number}"
        label, name = record.get("label"), str(record.get("classname") or "").strip()
        label = label.strip() if isinstance(label, str) else label
        if not record.get("path") or (label in (None, "") and not name):
            raise UserError(f"{where} lacks its path, or both label and classname: {record}.")
        if not (isinstance(record["path"], str) and isinstance(label, (str, int, type(None)))
                and isinstance(record.get("classname"), (str, int, type(None)))):
            raise UserError(f"{where} has a path, label or classname that is neither text nor a number: {record}.")
        key = int(float(label)) if by_number else name or str(label)
        if names.setdefault(key, name) != name:
            raise UserError(f"{where}: label {key} is {name!r} here and {names[key]!r} before. Each label stands for "
                            "one class.")
        split = str(record.get("split") or "").strip().lower()
        if split and split not in SPLITS:
            raise UserError(f"{where}: split {split!r} is none of train, val and test.")
        path = os.path.abspath(file.parent / str(record["path"]))
        before = seen.setdefault(path, (key, split))
        if before != (key, split):
            raise UserError(f"{where}: {path} is there twice, as {before[0]!r} in {before[1] or 'no split'} and as "
                            f"{key!r} in {split or 'no split'}. An image has one class and one split.")
    absent = [path for path in seen if not os.path.isfile(path)]
    if absent:
        raise UserError(f"{file} names {len(absent):,} of {len(seen):,} images that are not there, first "
                        f"{', '.join(absent[:5])}. Its paths count from {file.parent}, the folder it lies in.")
    _refuse_several_labels(file, {name or str(key) for key, name in names.items()})
    yield from (Row(path, key, names[key] or str(key), SPLITS.get(split, "")) for path, (key, split) in seen.items())


def _is_whole(label) -> bool:
    """Whether it is a whole number, or one as pandas writes it in a column with empty cells: 3.0."""
    return not isinstance(label, bool) and re.fullmatch(r"-?\d+(\.0+)?", str(label).strip()) is not None


def _refuse_several_labels(file: Path, names: set[str]) -> None:
    """Raises UserError where names such as "dog|wet" repeat the parts of others, or are lists: ['dog', 'wet']."""
    parts = Counter(part.strip() for name in names for part in set(re.split(r"[|;]", name)))
    if several := sorted(name for name in names if re.fullmatch(r"\[.*\]|\{.*\}", name)
                         or re.search(r"[|;]", name)
                         and any(parts[part.strip()] > 1 for part in re.split(r"[|;]", name))):
        raise UserError(f"{file}: {several[0]!r} reads like several labels of one image, and an image has one class "
                        "here. Keep one label for each image.")


def _plain(column) -> str:
    return str(column).strip().lower()


def _csv(file: Path) -> list[dict]:
    start = 1
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            head = lines.readline()
            lines.seek(0)
            reader = csv.reader(lines, delimiter=max(",;\t", key=head.count), strict=True)
            columns, rows = next(reader, []), []
            start = reader.line_num + 1
            for cells in reader:
                start = reader.line_num + 1
                if len(cells) > len(columns):
                    raise UserError(f"{file}, line {reader.line_num} has {len(cells)} fields and the first line "
                                    f"{len(columns)}: {cells}. Put a text with {reader.dialect.delimiter!r} in it in "
                                    "double quotes.")
                if cells:
                    rows.append(dict(zip(columns, cells, strict=False)))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not a UTF-8 CSV ({error}). Save it again as one.") from error
    except csv.Error as error:
        raise UserError(f"{file}, line {start} opens a double quote that does not end where its field does ({error}). "
                        'Close it, or write "" for a quote within a text.') from error
    _refuse_equal_columns(file, columns)
    return rows


def _refuse_equal_columns(file: Path, columns: Iterable) -> None:
    if twice := [name for name, count in Counter(map(_plain, columns)).items() if name and count > 1]:
        raise UserError(f"{file} has two columns {twice[0]!r}. Rename the one that is not meant.")


def _json(file: Path) -> list[dict]:
    """A list of objects or of [path, label, classname], or {split: either}."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not valid JSON ({error}).") from error
    parts = content if isinstance(content, dict) else {"": content}
    if strange := [name for name in parts if name and _plain(name) not in SPLITS]:
        raise UserError(f"{file} is an object with {', '.join(map(repr, strange[:5]))}, and only train, val and test "
                        "are expected, each a list of images {path, label, classname}. Without splits, write one list.")
    rows = []
    for split, items in parts.items():
        for item in items if isinstance(items, list) else [None]:
            if isinstance(item, (list, tuple)) and len(item) in (2, 3):
                item = dict(zip(("path", "label", "classname"), item, strict=False))
            if not isinstance(item, dict):
                raise UserError(f"{file}: a list of images, or such lists named train, val and test, is expected; each "
                                f"image as {{path, label, classname}} or [path, label, classname], got {item!r}.")
            rows.append({**item, "split": split} if split else item)
    return rows


def _json_lines(file: Path) -> list[dict]:
    """One object a line."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no JSON in UTF-8 ({error}). Save it again as one.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line, object_pairs_hook=_once) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}, line {number} is no JSON ({error}).") from error
        if row is not None and not isinstance(row, dict):
            raise UserError(f"{file}, line {number} is no object with path and caption, got {row!r}.")
        rows += [] if row is None else [row]
    return rows


def read_pairs(file: Path) -> list[tuple[str, str, str]]:
    """(absolute path, caption, split) of each row of a list; the split is "" where the row has none.

    Args:
        file: .csv, .tsv, .txt or .jsonl; paths count from its folder.
    Raises:
        UserError: no such columns, a row without one of them, an unknown split, an image in two splits, no such image.
    """
    rows = _with_known_columns(file, (_json_lines if file.suffix.lower() == ".jsonl" else _csv)(file), _PAIR_COLUMNS)
    found, splits = [], {}
    for number, row in enumerate(rows, 1):
        where = f"{file}, pair {number}"
        if not all(isinstance(row.get(key), str) and row[key].strip() for key in ("path", "caption")):
            raise UserError(f"{where} lacks its path or its caption: {row}. Both are text that is not empty.")
        split = str(row.get("split") or "").strip().lower()
        if split and split not in SPLITS:
            raise UserError(f"{where}: split {split!r} is none of train, val and test.")
        path = os.path.abspath(file.parent / row["path"].strip())
        if splits.setdefault(path, split) != split:
            raise UserError(f"{where}: {path} is there twice, in {splits[path] or 'no split'} and in "
                            f"{split or 'no split'}. An image has one split.")
        found.append((path, row["caption"].strip(), SPLITS.get(split, "")))
    absent = [path for path in splits if not os.path.isfile(path)]
    if absent:
        raise UserError(f"{file} names {len(absent):,} of {len(splits):,} images that are not there, first "
                        f"{', '.join(absent[:5])}. Its paths count from {file.parent}, the folder it lies in.")
    return found


def _once(pairs: list[tuple]) -> dict:
    """A JSON object; Python would let the last of two equal names win."""
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError(f"a name is there twice in an object: {', '.join(name for name, _ in pairs)}")
    return found


def _with_known_columns(file: Path, rows: list[dict], columns: dict[str, tuple[str, ...]] = _COLUMNS) -> list[dict]:
    for row in rows[:1]:
        _refuse_equal_columns(file, row)
    head = {_plain(name): name for row in rows[:1] for name in row}
    known = {column: head[alias] for column, aliases in columns.items()
             for alias in reversed(aliases) if alias in head}
    for column, aliases in columns.items():
        if len(both := [head[alias] for alias in aliases if alias in head]) > 1:
            logger.warning("%s: the columns %s may all hold the %s; %s is read", file, " and ".join(both), column,
                           known[column])
    wanted = {"caption"} if "caption" in columns else {"label", "classname"}
    if rows and ("path" not in known or not known.keys() & wanted):
        raise UserError(f"{file} has the columns {', '.join(head) or 'of an empty line'}; its first line needs path, "
                        f"and {' or '.join(sorted(wanted, reverse=True))}, and split if images have one.")
    return [{column: row.get(name) for column, name in known.items()} for row in rows]


def names_in(file: Path) -> list[str]:
    """The class names in a file: one per line, or those of a JSON list or object.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    content = _names(file)
    return list(content.values()) if isinstance(content, dict) else content


def _names(file: Path) -> list[str] | dict[str, str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        content = json.loads(text, object_pairs_hook=_once) if file.suffix.lower() == ".json" else lines
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}). Name a file of class names, one per "
                        "line.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not a readable text or JSON ({error}).") from error
    values = content.values() if isinstance(content, dict) else content if isinstance(content, list) else [None]
    if wrong := [value for value in values if not isinstance(value, str) or not value.strip()]:
        raise UserError(f"{file} holds a list of names, or an object of them; a name is text that is not empty, and it "
                        f"has {wrong[0]!r}." if content != wrong else f"{file} holds no list and no object of names.")
    return content


def read_classnames(file: Path, keys: list, names: list[str]) -> list[str]:
    """Names for classes: as `names_in`, in the classes' order, or as "folder: name" lines or a JSON object.

    Args:
        keys, names: the classes as their folders, labels or lists have them, in order.
    """
    content = _names(file)
    if isinstance(content, list) and all(":" in line for line in content):
        pairs = [[part.strip() for part in line.split(":", 1)] for line in content]
        if twice := [old for old, count in Counter(old for old, _ in pairs).items() if count > 1]:
            raise UserError(f"{file} names the class {twice[0]!r} twice. Keep one line for each class.")
        content = dict(pairs)
    if isinstance(content, dict):
        given = [content.get(str(key), content.get(name)) for key, name in zip(keys, names, strict=True)]
        if None in given:
            raise UserError(f"{file} has no name for the class {names[given.index(None)]!r}; it has "
                            f"{', '.join(list(content)[:5])} ...")
        return [str(name) for name in given]
    if len(content) != len(keys):
        raise UserError(f"{file} has {len(content)} names and there are {len(keys)} classes, {names[0]!r} to "
                        f"{names[-1]!r}: one line per class is needed, in this order, or lines such as `folder: name`.")
    return [str(name) for name in content]
