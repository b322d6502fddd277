"""User errors: programs print their message without a traceback and exit with code 2. Imports nothing heavy."""


class UserError(Exception):
    """The rule, the offending value and the way out."""


class MissingFile(UserError, FileNotFoundError):
    """A file that is not there; both what Dassl's callers catch and what ends a command with one paragraph."""
