"""Held against the installed safetensors: the same files accepted, the same content, the same rule named."""

import random

import pytest
from file_mutations import mutant
from file_verdict import assert_same_bytes, assert_same_verdict, assert_same_verdict_on_bytes
from header_seeds import DATA_NBYTES, NAMED, SEEDS

__all__ = ["DATA_NBYTES", "NAMED", "SEEDS"]  # for the fuzzer

BACKENDS = ("auto", "mmap", "pread")
# 104,000 files in 16 parts, so that a part that fails is soon run again.
PARTS = 16
FILES_PER_PART = 6_500


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMED)
def test_named_inputs(name, backend, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(NAMED[name])
    if assert_same_verdict(path, NAMED[name], backend):
        assert_same_bytes(path, NAMED[name], backend)
    assert_same_verdict_on_bytes(NAMED[name])


@pytest.mark.parametrize("part", range(PARTS))
def test_mutated_files(part, tmp_path):
    rng = random.Random(f"mutated files {part}")
    path = str(tmp_path / "x.safetensors")
    accepted = 0
    for number in range(FILES_PER_PART):
        content = mutant(rng)
        backend = BACKENDS[number % len(BACKENDS)]
        with open(path, "wb") as file:
            file.write(content)
        try:
            if assert_same_verdict(path, content, backend):
                accepted += 1
                assert_same_bytes(path, content, backend)
            assert_same_verdict_on_bytes(content)
        except BaseException as error:
            raise AssertionError(f"[{backend}] {content!r}: {error}") from error
    assert accepted > FILES_PER_PART // 10  # not just rubbish
