import pytest

from lora_mmap import _C
from lora_mmap.errors import ArgumentError


def test_probes_measure_something():
    for isa in _C.probe_isas():
        assert _C.probe_fma(1, isa) > 1e7
    assert _C.probe_read_write(2, 1 << 20) > 1e7
    assert _C.probe_copy(1, (1 << 20) + 1) > 1e7


def test_nonsense_is_refused():
    for call in (lambda: _C.probe_fma(0, "scalar"), lambda: _C.probe_read_write(1, 0), lambda: _C.probe_copy(-1, 64)):
        with pytest.raises(ArgumentError, match=r"\[probe_"):
            call()


def test_every_kernel_that_can_run_can_be_held_against_a_peak():
    assert set(_C.isas()) <= set(_C.probe_isas())
    with pytest.raises(ArgumentError, match=r"\[probe_fma\] isa is 'mmx': .*scalar"):
        _C.probe_fma(1, "mmx")
