"""The name under which user errors were known."""
from dassl.errors import MissingFile, UserError

__all__ = ["MissingFile", "UserError"]
