"""Whether an address stays on this machine."""
from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """`host`: a name or an address, without port."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
