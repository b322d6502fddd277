"""Another name of dassl.compat.ops."""
from dassl.compat import face

face(__name__, "dassl.compat.ops")
