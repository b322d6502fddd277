"""log.txt, seeds, and what importing the engine costs."""
import io
import json
import logging
import random
import sys

import numpy as np
import pytest
import torch

import dassl.utils
from dassl.config import get_cfg_default
from dassl.evaluation import build_evaluator
from dassl.utils import UserError, read_image, read_json, set_random_seed, setup_logger, write_json


def test_log_txt_gets_prints_and_log_lines_and_stdout_is_given_back(tmp_path, capsys):
    root = logging.getLogger()
    before, level, handlers = sys.stdout, root.level, list(root.handlers)
    with setup_logger(str(tmp_path)) as log:
        print("a third-party trainer prints")
        logging.getLogger("dassl.engine.trainer").info("* accuracy: %.1f%%", 93.1)
        assert sys.stdout is not before
        assert setup_logger(str(tmp_path)) is log
    assert sys.stdout is before and root.level == level and root.handlers == handlers
    assert capsys.readouterr().out == "a third-party trainer prints\n"
    print("after the run")
    assert (tmp_path / "log.txt").read_text() == "a third-party trainer prints\n* accuracy: 93.1%\n"


def test_stdout_is_given_back_when_the_run_fails(tmp_path):
    before = sys.stdout
    with pytest.raises(ZeroDivisionError), setup_logger(str(tmp_path)):
        _ = 1 / 0
    assert sys.stdout is before


def test_an_earlier_log_is_kept_beside_the_new_one(tmp_path):
    for word in ("first", "second"):
        with setup_logger(str(tmp_path)):
            logging.getLogger("dassl").info(word)
    texts = sorted(p.read_text() for p in tmp_path.iterdir())
    assert texts == ["first\n", "second\n"]


def test_a_second_run_closes_the_first_ones_log(tmp_path):
    before = sys.stdout
    setup_logger(str(tmp_path / "a"))
    with setup_logger(str(tmp_path / "b")):
        logging.getLogger("dassl").info("only b")
    assert sys.stdout is before and (tmp_path / "a" / "log.txt").read_text() == ""
    assert setup_logger("") is None


def test_closing_a_log_leaves_a_stdout_that_someone_replaced_meanwhile(tmp_path, monkeypatch):
    log, mine = setup_logger(str(tmp_path)), open(tmp_path / "mine", "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", mine)
    log.close()
    assert sys.stdout is mine
    mine.close()


@pytest.mark.parametrize("seed", [0, 1, 2 ** 31, 2 ** 32 + 5])
def test_a_seed_settles_all_three_streams_zero_included(seed):
    def draws():
        set_random_seed(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draws() == draws()
    set_random_seed(seed + 1)
    assert random.random() != draws()[0]


def test_every_name_that_dassl_utils_offers_is_there():
    assert len(dassl.utils.__all__) > 20
    assert all(hasattr(dassl.utils, name) for name in dassl.utils.__all__)


def test_summary_writer_is_found_where_public_code_looks_for_it():
    pytest.importorskip("tensorboard")
    from dassl.engine.trainer import SummaryWriter

    assert SummaryWriter.__name__ == "SummaryWriter"


def test_a_json_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json({"name": "é", "n": [1, 2]}, str(path))
    assert read_json(str(path)) == {"name": "é", "n": [1, 2]} and [p.name for p in path.parent.iterdir()] == ["a.json"]
    with pytest.raises(TypeError):
        write_json({"bad": object()}, str(path))
    assert json.loads(path.read_text())["name"] == "é" and [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_an_unreadable_image_is_named(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(UserError, match="No image at .*a.png"):
        read_image(str(path))
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match="a.png is not a readable image"):
        read_image(str(path))


@pytest.fixture
def printed(forked):
    """printed(level) -> (stdout, stderr) of an evaluation in a program that configured logging so, or not at all."""
    def evaluate(level):
        logging.root.handlers.clear()                               # pytest's own
        sys.stdout, sys.stderr, sys.__stdout__ = (out := io.StringIO()), (err := io.StringIO()), out
        if level:
            logging.basicConfig(level=level, stream=sys.stderr)
        evaluator = build_evaluator(get_cfg_default())
        evaluator.process(torch.eye(2), torch.tensor([0, 1]))
        evaluator.evaluate()
        return out.getvalue(), err.getvalue()

    return lambda level="": forked(evaluate, level)()


def test_results_are_printed_where_no_log_is_open_and_no_logging_configured(printed):
    assert "=> result\n* total: 2\n* correct: 2\n* accuracy: 100.0%" in printed()[0]
    out, err = printed("INFO")
    assert not out and err.count("* accuracy: 100.0%") == 1
    out, err = printed("WARNING")
    assert out.count("* accuracy: 100.0%") == 1 and not err


def test_dassls_logger_class_writes_to_console_and_file(tmp_path, capsys):
    from dassl.utils.logger import Logger

    with Logger(str(tmp_path / "new" / "log.txt")) as stream:
        stream.write("seen twice\n")
        stream.flush()
    stream.write("console only\n")
    assert capsys.readouterr().out == "seen twice\nconsole only\n"
    assert (tmp_path / "new" / "log.txt").read_text() == "seen twice\n"
