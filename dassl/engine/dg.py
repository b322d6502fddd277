"""Another name of dassl.compat.dg."""
from dassl.compat import face

face(__name__, "dassl.compat.dg")
