"""Another name of dassl.compat.extend."""
from dassl.compat import face

face(__name__, "dassl.compat.extend")
