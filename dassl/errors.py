"""User errors: programs print their message without a traceback and exit with code 2. Imports nothing heavy."""
_LONGEST, _HEAD, _TAIL = 2000, 900, 600     # characters of a line of a message, and what is shown of a longer one


class UserError(Exception):
    """The rule, the offending value and the way out; of a value that fills pages its ends are shown."""

    def __str__(self) -> str:
        return "\n".join(map(shortened, super().__str__().split("\n")))


def shortened(line: str, longest: int = _LONGEST, head: int = _HEAD, tail: int = _TAIL) -> str:
    """A line of at most `longest` characters as it is; of a longer one its ends and how much is left out."""
    if len(line) <= longest:
        return line
    return f"{line[:head]} [... {len(line) - head - tail:,} characters ...] {line[-tail:]}"


class MissingFile(UserError, FileNotFoundError):
    """A file that is not there; both what Dassl's callers catch and what ends a command with one paragraph."""
