"""LORA_MMAP_CUDA, LORA_MMAP_CUDA_ARCHS, LORA_MMAP_LABEL."""

import pytest
from compile_images.request import BuildError, Request, default_archs, label


@pytest.mark.parametrize(
    ("text", "mode", "toolkit"),
    [
        ("", "auto", None),
        ("auto", "auto", None),
        (" Off ", "off", None),
        ("12.6", "release", (12, 6)),
        ("12.8", "release", (12, 8)),
        ("12.9", "release", (12, 9)),
        ("13.0", "release", (13, 0)),
        ("13.1", "release", (13, 1)),
    ],
)
def test_what_is_understood(text, mode, toolkit):
    assert Request.parse(text) == Request(mode, toolkit)


@pytest.mark.parametrize("text", ["on", "12", "12.7", "11.8", "14.0", "cu128", "12.8.1", "0"])
def test_anything_else_is_refused_with_what_there_is(text):
    with pytest.raises(BuildError, match=f"^LORA_MMAP_CUDA='{text}' is none of off, auto, 12.6, 12.8, 12.9, 13.0"):
        Request.parse(text)


@pytest.mark.parametrize("text", ["75;90", "75,90", "90 75", " 90; 75 ;90"])
def test_lists_of_archs(text):
    assert Request.parse("auto", text).archs == (75, 90)


@pytest.mark.parametrize("word", ["sm_90", "9.0", "90a", "70", "1200", "all"])
def test_an_arch_that_is_none(word):
    with pytest.raises(BuildError, match=f"^LORA_MMAP_CUDA_ARCHS='80;{word}': '{word}' is no architecture"):
        Request.parse("auto", f"80;{word}")


def test_the_environment():
    given = {"LORA_MMAP_CUDA": "12.8", "LORA_MMAP_CUDA_ARCHS": "80"}
    assert Request.from_environment(given) == Request("release", (12, 8), (80,))
    assert Request.from_environment({}) == Request("auto")


def test_pip_installs_a_compiler_only_for_the_releases_that_pypi_has():
    assert Request.parse("12.8").build_requirements() == ["nvidia-cuda-nvrtc-cu12==12.8.*"]
    for text in ("off", "auto", "13.0"):
        assert Request.parse(text).build_requirements() == []


def test_archs_of_each_release():
    hopper, blackwell = (75, 80, 86, 89, 90), (100, 120)
    assert default_archs((12, 6)) == hopper
    for release in ((12, 8), (12, 9), (13, 0)):
        assert default_archs(release) == hopper + blackwell


@pytest.mark.parametrize(
    ("toolkit", "wish", "from_sdist", "expected"),
    [
        ((12, 8), "", False, "+cu128"),
        ((13, 0), "", False, "+cu130"),
        (None, "", False, "+cpu"),
        ((12, 8), "none", False, ""),
        ((12, 8), "", True, ""),
        ((12, 8), "cuda", True, "+cu128"),
        (None, "cuda", True, "+cpu"),
    ],
)
def test_labels(toolkit, wish, from_sdist, expected):
    assert label(toolkit, wish, from_sdist) == expected


def test_an_unknown_label():
    with pytest.raises(BuildError, match=r"^LORA_MMAP_LABEL='cu128' is neither none nor cuda$"):
        label(None, "cu128", False)
