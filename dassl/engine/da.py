"""Another name of dassl.compat.da."""
from dassl.compat import face

face(__name__, "dassl.compat.da")
