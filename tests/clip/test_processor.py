"""How matrices are multiplied follows from the maker and the instruction sets of a processor, and from nothing else."""
import pytest

from clip.processor import Processor, this_processor

AVX512, BF16 = {"avx2", "avx512f"}, {"avx2", "avx512f", "avx512_bf16"}


@pytest.mark.parametrize(("maker", "flags", "onednn"), [
    ("AuthenticAMD", AVX512, True), ("HygonGenuine", AVX512, True), ("AuthenticAMD", {"avx2"}, False),
    ("AuthenticAMD", set(), False), ("GenuineIntel", AVX512, False), ("GenuineIntel", {"avx2"}, False),
    ("", set(), False)])
def test_onednn_is_preferred_with_avx512_on_any_maker_but_intel(maker, flags, onednn):
    assert Processor(maker, frozenset(flags)).prefers_onednn is onednn


@pytest.mark.parametrize("maker", ["AuthenticAMD", "GenuineIntel"])
@pytest.mark.parametrize(("flags", "native"), [(AVX512, False), (BF16, True), ({"amx_bf16"}, True), (set(), False)])
def test_bfloat16_is_native_where_either_instruction_set_has_it(maker, flags, native):
    assert Processor(maker, frozenset(flags)).multiplies_bfloat16 is native


def test_the_description_of_the_first_core_is_read(tmp_path):
    file = tmp_path / "cpuinfo"
    core = "processor\t: {}\nvendor_id\t: AuthenticAMD\nmodel name\t: A: 2\nflags\t\t: fpu avx2 avx512f{}\nbugs\t\t:\n"
    file.write_text("\n".join(core.format(n, " amx_bf16" * n) for n in range(2)))
    found = this_processor(file)
    assert found == Processor("AuthenticAMD", frozenset({"fpu", "avx2", "avx512f"}))
    assert str(found) == "AuthenticAMD with avx2 avx512f"


@pytest.mark.parametrize("text", [None, "", "processor : 0\nFeatures : fp asimd bf16\n\nHardware : x\n"])
def test_without_such_a_description_no_rule_applies(text, tmp_path):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    found = this_processor(file)
    assert found == Processor() and not found.prefers_onednn and not found.multiplies_bfloat16
    assert str(found) == "unknown"
