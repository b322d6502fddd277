"""Another name of dassl.compat.ssl."""
from dassl.compat import face

face(__name__, "dassl.compat.ssl")
