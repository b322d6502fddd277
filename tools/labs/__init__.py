"""Extras that no table of a paper needs. Nothing imports them but the commands that they are: bench, pretrain_tiny,
describe, export, share, and predict --serve.
"""
from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """`host`: a name or an address, without port."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
