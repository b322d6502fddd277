"""The line that says what is being done: replaced on a terminal, absent elsewhere unless it is to be kept."""
import os

from tools import status


def test_a_terminal_sees_one_line_in_the_place_of_the_other_never_wider_than_it_is(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((8, 24)))
    status.say("one")
    status.say("longer than that")
    status.say("kept as a whole", end="\n")
    assert capsys.readouterr().err == "\r\033[Kone\r\033[Klonger \r\033[Kkept as a whole\n"


def test_a_file_gets_only_what_is_to_be_kept(capsys):
    status.say("one")
    status.say("kept", end="\n")
    assert capsys.readouterr().err == "kept\n"
