"""Another name of dassl.compat.cpu_shim."""
from dassl.compat import face

face(__name__, "dassl.compat.cpu_shim")
