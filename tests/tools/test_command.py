"""How a command ends: words and a code for what a user can mend, a traceback for what only we can."""
import errno

import pytest

from dassl.utils import UserError
from tools import command


@pytest.mark.parametrize(("outcome", "code", "told"), [
    (None, 0, ""), (1, 1, ""), (UserError("The rule."), 2, "\nThe rule.\n"), (KeyboardInterrupt(), 130, "\nGone.\n"),
    (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "\n/x cannot be read or written (Permission denied)"),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "\nA file cannot be read or written (No space left")])
def test_an_end_is_a_code_and_one_paragraph(outcome, code, told, capsys):
    def work():
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    assert command.ended(work, "Gone.") == code
    said = capsys.readouterr()
    assert said.err.startswith(told) and bool(said.err) == bool(told) and not said.out


@pytest.mark.parametrize("error", [ZeroDivisionError(), FileNotFoundError(errno.ENOENT, "No such file", "/x"),
                                   OSError("no number")])
def test_a_fault_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        command.ended(lambda: (_ for _ in ()).throw(error))
