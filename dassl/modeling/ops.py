"""Another name of dassl.compat.ops."""
from dassl.compat import face

face(__name__, "dassl.compat.ops",
     dsbn="layers", reverse_grad="layers", sequential2="layers", transnorm="layers",
     cross_entropy="losses", mixup="losses", mmd="losses", optimal_transport="losses",
     efdmix="styles", mixstyle="styles")
