"""What the embedded datasets say of their classes: true, distinct, and in words that the embedded CLIP knows."""
import logging
import re

import pytest
from yacs.config import CfgNode

from clip import load_clip
from clip.text import warn_of_unknown_words
from datasets.cards import CARDS
from datasets.digits import Digits, DigitsLowContrast
from datasets.shapes import Shapes, ShapesSketch
from trainers.parts.description_files import is_published
from trainers.parts.descriptions import load_descriptions

KINDS = ("des", "dist", "cse_1", "cse_2", "cse_3")


def build(cls, root):
    return cls(CfgNode({"SEED": 1, "DATASET": {"ROOT": str(root), "NUM_SHOTS": -1, "SUBSAMPLE_CLASSES": "all"}}))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root; no shapes are drawn, since only their words count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shapes, "_draw", lambda dataset: iter(()))
        yield tmp_path_factory.mktemp("own_root")


@pytest.fixture(scope="module", params=[Shapes, Digits], ids=["shapes", "digits"])
def dataset(request, root):
    return build(request.param, root)


def test_every_class_has_24_different_long_sentences_of_each_kind(dataset):
    assert set(dataset.descriptions) == set(KINDS)
    for kind in KINDS:
        own = load_descriptions(kind, dataset.classnames, stem=dataset.descriptions_stem, own=dataset.descriptions)
        assert len(own) == dataset.num_classes and {len(set(sentences)) for sentences in own} == {24}


def test_every_article_fits_the_word_after_it(dataset):
    sentences = [s for kind in dataset.descriptions.values() for own in kind.values() for s in own]
    assert len(sentences) >= 10 * 24 * len(KINDS) and any(s.startswith("an image of") for s in sentences)
    assert not [s for s in sentences if re.search(r"\ba (?!one\b)[aeiou]|\ban [^aeiou]", s)]


def test_the_embedded_clip_knows_every_word(dataset, caplog):
    texts = [s for kind in dataset.descriptions.values() for own in kind.values() for s in own]
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_words(load_clip("tiny"), texts)
    assert not caplog.records


def test_a_sentence_on_a_shape_is_true_and_leaves_out_one_attribute_at_most(root):
    dataset = build(Shapes, root)
    values = {key: {has[key] for has in dataset.attributes.values()} for key in ("shape", "colour", "texture")}
    for kind, classes in dataset.descriptions.items():
        stated = {"cse_1": "shape", "cse_2": "colour", "cse_3": "texture"}.get(kind)
        for name, sentences in classes.items():
            has = dataset.attributes[name]
            for words in (set(s.replace(",", "").rstrip(".").split()) for s in sentences):
                named = {key: words & values[key] for key in values}
                assert all(said <= {has[key]} for key, said in named.items()), (name, words)
                assert sum(map(bool, named.values())) >= 2 and (stated is None or named[stated]), (kind, words)
            whole = sum(name in s for s in sentences)
            assert whole == 12


def test_a_sentence_on_a_digit_names_it_and_no_other(root):
    dataset = build(Digits, root)
    figures = dict(zip(dataset.classnames, "0123456789"))
    for classes in dataset.descriptions.values():
        for name, sentences in classes.items():
            for words in (set(s.replace(",", "").rstrip(".").split()) - {"one"} for s in sentences):
                others = {*figures, *figures.values()} - {name, figures[name]}
                assert not words & others and (name == "one" or words & {name, figures[name]})


def test_a_shifted_copy_says_the_same(root):
    assert build(ShapesSketch, root).descriptions == build(Shapes, root).descriptions
    assert build(DigitsLowContrast, root).descriptions == build(Digits, root).descriptions


def test_every_dataset_of_the_papers_says_the_stem_of_its_description_files():
    stems = {card.descriptions for card in CARDS.values()} - {""}
    assert len(stems) == 12 and all(is_published(kind, stem) for kind in ("des", "dist") for stem in stems)
    assert all(is_published(f"cse_{i}", stem) for i in (1, 2, 3) for stem in stems - {"imagenet"})
    assert is_published("cse_7", "dtd") and not is_published("cse_4", "eurosat") and not is_published("des", "mine")
