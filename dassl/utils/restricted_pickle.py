"""Another name of dassl.compat.restricted_pickle."""
from dassl.compat import face

face(__name__, "dassl.compat.restricted_pickle")
