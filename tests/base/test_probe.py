import pytest

from lora_mmap import _C
from lora_mmap.errors import ArgumentError


def test_probes_measure_something():
    assert _C.probe_fma(1) > 1e8
    assert _C.probe_read_write(2, 1 << 20) > 1e7
    assert _C.probe_copy(1, (1 << 20) + 1) > 1e7


def test_nonsense_is_refused():
    for call in (lambda: _C.probe_fma(0), lambda: _C.probe_read_write(1, 0), lambda: _C.probe_copy(-1, 64)):
        with pytest.raises(ArgumentError, match=r"\[probe_"):
            call()
