"""Facts about the processor that decide, without measuring anything, how matrices are multiplied."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

INTEL, BFLOAT16 = "GenuineIntel", ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Processor:
    """maker: as the processor reports it ("AuthenticAMD"). flags: instruction sets by Linux's names ("avx512f").

    Both are empty where they are unknown.
    """

    maker: str = ""
    flags: frozenset[str] = frozenset()

    @property
    def prefers_onednn(self) -> bool:
        """AVX-512 on a maker other than Intel, where oneDNN doubled the rate of F.linear (docs/performance.md)."""
        return "avx512f" in self.flags and self.maker != INTEL

    @property
    def multiplies_bfloat16(self) -> bool:
        """In hardware."""
        return not self.flags.isdisjoint(BFLOAT16)

    def __str__(self) -> str:
        known = [flag for flag in ("avx2", "avx512f", *BFLOAT16) if flag in self.flags]
        return f"{self.maker} with {' '.join(known) or 'no AVX2'}" if self.maker else "unknown"


def this_processor(cpuinfo: str | Path = "/proc/cpuinfo") -> Processor:
    """That of this machine, from Linux's description; `Processor()` on systems without one."""
    try:
        first = Path(cpuinfo).read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return Processor()
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
    return Processor(facts.get("vendor_id", ""), frozenset(facts.get("flags", "").split()))
