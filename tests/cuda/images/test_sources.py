"""What makes a build compile the images anew."""

from compile_images.sources import read_with, write_depfile


def test_every_file_that_is_included_from_any_depth(tmp_path):
    beside, under = tmp_path / "room" / "beside.h", tmp_path / "other" / "under.h"
    source = tmp_path / "room" / "kernels.cu"
    for file, text in [
        (source, '#include "beside.h"\n  #  include "other/under.h"\n#include <cstdint>\n#include "nowhere.h"\n'),
        (beside, '#include "other/under.h"\n#include "beside.h"\n// #include "absent.h"\n'),
        (under, '#include "room/beside.h"\n#include OF_A_MACRO\n'),
        (tmp_path / "absent.h", ""),
    ]:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert set(read_with(source, tmp_path)) == {source, beside, under}


def test_the_file_beside_comes_first(tmp_path):
    (tmp_path / "room").mkdir()
    source = tmp_path / "room" / "kernels.cu"
    source.write_text('#include "table.h"\n')
    for folder in (tmp_path, tmp_path / "room"):
        (folder / "table.h").write_text("")
    assert read_with(source, tmp_path) == [source, tmp_path / "room" / "table.h"]


def test_the_kernels_are_many_files(kernels):
    names = {file.name for file in read_with(kernels, kernels.parents[2])}
    assert {"kernels.cu", "table.h"} <= names


def test_blanks_in_names(tmp_path):
    depfile = tmp_path / "image.d"
    write_depfile(depfile, tmp_path / "an image", [tmp_path / "a.cu", tmp_path / "b c.h"])
    assert depfile.read_text() == f"{tmp_path}/an\\ image: {tmp_path}/a.cu {tmp_path}/b\\ c.h\n"
