"""Every rule of the header, kept and broken. What safetensors itself says is test_header_differential's."""

import struct

import pytest
import safetensors
from header_bytes import BITS, file_of, tensor_file

from lora_mmap import _C
from lora_mmap.errors import HeaderError


def parse(data):
    return _C.Header.parse(data)


def rejected(data, rule):
    with pytest.raises(HeaderError) as caught:
        parse(data)
    assert isinstance(caught.value, safetensors.SafetensorError)
    assert str(caught.value).startswith("Error while deserializing: " + rule), str(caught.value)
    return str(caught.value)


def test_a_header_says_what_the_file_holds():
    header = parse(
        file_of(
            {
                "b": {"dtype": "F16", "shape": [2, 3], "data_offsets": [4, 16]},
                "__metadata__": {"z": "1", "a": "2"},
                "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
            },
            bytes(16),
        )
    )
    assert len(header) == 2
    assert header.names() == ["a", "b"]
    assert header.dtypes() == ["F32", "F16"]
    assert header.shapes() == [(), (2, 3)]
    assert header.nbytes() == [4, 12]
    assert header.offsets() == [header.header_nbytes, header.header_nbytes + 4]
    assert list(header.metadata.items()) == [("z", "1"), ("a", "2")]
    assert [header.index(name) for name in header.names()] == [0, 1]
    with pytest.raises(KeyError, match="missing"):
        header.index("missing")


@pytest.mark.parametrize("nbytes", range(8))
def test_a_file_shorter_than_its_length_field(nbytes):
    rejected(bytes(nbytes), "header too small")


@pytest.mark.parametrize("announced", [100_000_001, 2**63, 2**64 - 1])
def test_a_header_that_is_too_large(announced):
    text = rejected(struct.pack("<Q", announced) + b"{}", "header too large")
    assert "HeaderTooLarge" in text
    assert str(announced) in text


@pytest.mark.parametrize("announced", [3, 100_000_000])
def test_a_header_longer_than_the_file(announced):
    rejected(struct.pack("<Q", announced) + b"{}", "invalid header length")


@pytest.mark.parametrize(
    "name", [b"\xff", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xf0\x9f\x98"]
)
def test_invalid_utf8(name):
    text = rejected(file_of(b'{"plain ascii text":"' + name + b'"}'), "invalid UTF-8 in header")
    assert "byte 21" in text


@pytest.mark.parametrize("name", ["é", "߿", "ࠀ", "\ud7ff", "\ue000", "\uffff", "😀", "\U0010ffff", "\x7f", ""])
def test_valid_utf8_names(name):
    entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    assert parse(file_of(f'{{"{name}":{entry}}}')).names() == [name]


@pytest.mark.parametrize("text", ["{}", " \t\r\n{ \n} \r\n"])
def test_white_space_around_the_object(text):
    assert len(parse(file_of(text))) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "}",
        "{}}",
        "{}\x00",
        "\ufeff{}",
        "\x0b{}",
        "{}x",
        "[]",
        "null",
        "1",
        "true",
        '"a"',
        "{,}",
        '{"a"}',
        '{"a":}',
        '{"__metadata__":{},}',
        "{'a':1}",
        "{a:1}",
    ],
)
def test_anything_but_one_json_object(text):
    rejected(file_of(text), "invalid JSON in header")


VALUES = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1.5e+3",
    "1E-999",
    "0e999",
    "1e308",
    "1" * 308,
    '""',
    '"\\/"',
    "[]",
]
VALUES += ["{}", "[1, [2, {}]]", '{"k":"v"}', '"\\ud83d\\ude00"', '"é"', '{"k":1,"k":2}', "1.7976931348623157e308"]
BAD_VALUES = ["nul", "nullx", "True", "NaN", "Infinity", "-Infinity", "-", "+1", ".5", "1.", "1e", "1e+", "01", "-01"]
BAD_VALUES += ["1e309", "-1e309", "1" * 400, "1.7976931348623158e308", "0.0001e320", '"', '"\\', '"\\x"', '"\\u12"']
BAD_VALUES += ['"\\u12g4"', '"\\ud800"', '"\\udc00"', '"\\ud800\\u0041"', '"\\ud800\\n"', '"\x01"', "[1,]", "[1 2]"]
BAD_VALUES += ["[", '{"k"}', '{"k":}', '{"k" 1}', "{1:1}", '{"k":1,}', "[}", "{]", ""]


@pytest.mark.parametrize("value", VALUES)
def test_unknown_fields_are_ignored(value):
    assert parse(tensor_file(extra=f'"x":{value},')).names() == ["a"]


@pytest.mark.parametrize("value", BAD_VALUES)
def test_unknown_fields_must_be_json(value):
    rejected(tensor_file(extra=f'"x":{value},'), "invalid JSON in header")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"k":', "}")])
def test_nesting(opening, closing):
    def nested(levels):
        return opening * levels + ("0" if closing == "}" else "") + closing * levels

    assert len(parse(tensor_file(extra=f'"x":{nested(125)},'))) == 1
    text = rejected(tensor_file(extra=f'"x":{nested(126)},'), "invalid JSON in header")
    assert "recursion limit exceeded" in text


@pytest.mark.parametrize(
    ("text", "metadata"),
    [
        ("{}", None),
        ('{"__metadata__":null}', None),
        ('{"__metadata__":{}}', {}),
        ('{"__metadata__":{"a":"b","":"\\u0000"}}', {"a": "b", "": "\0"}),
        ('{"__metadata__":{"a":"1","b":"2","a":"3"}}', {"a": "3", "b": "2"}),
        ('{"__\\u006detadata__":{"k":"v"}}', {"k": "v"}),
    ],
)
def test_metadata(text, metadata):
    header = parse(file_of(text))
    assert header.metadata == metadata
    assert len(header) == 0


@pytest.mark.parametrize("value", ['"x"', "1", "[]", "true", '{"a":1}', '{"a":null}', '{"a":["b"]}', "{1:2}"])
def test_metadata_of_another_type(value):
    rejected(file_of(f'{{"__metadata__":{value}}}'), "invalid JSON in header")


@pytest.mark.parametrize("value", ["null", "{}"])
def test_metadata_twice(value):
    rejected(file_of(f'{{"__metadata__":{value},"__metadata__":{value}}}'), "invalid JSON in header: duplicate field")


@pytest.mark.parametrize("field", ["dtype", "shape", "data_offsets"])
def test_required_fields_come_once(field):
    fields = {"dtype": '"F32"', "shape": "[1]", "data_offsets": "[0,4]"}

    def body(pairs):
        return file_of('{"a":{' + ",".join(f'"{k}":{v}' for k, v in pairs) + "}}", b"1234")

    assert len(parse(body(fields.items()))) == 1
    missing = [(k, v) for k, v in fields.items() if k != field]
    assert f"missing field `{field}`" in rejected(body(missing), "invalid JSON in header")
    twice = [*fields.items(), (field, fields[field])]
    assert f"duplicate field `{field}`" in rejected(body(twice), "invalid JSON in header")


def test_list_form():
    assert parse(file_of('{"a": [ "F32", [1], [0,4] ] }', b"1234")).shapes() == [(1,)]
    for entry in ("[]", '["F32"]', '["F32",[1]]', '["F32",[1],[0,4],1]', '[[1],"F32",[0,4]]', "null", "1"):
        rejected(file_of(f'{{"a":{entry}}}', b"1234"), "invalid JSON in header")


@pytest.mark.parametrize("number", ["1e0", "1.0", "-0", "-1", "01", "18446744073709551616", '"1"', "null", "[1]"])
def test_shape_and_offsets_are_plain_integers(number):
    rejected(tensor_file(shape=f"[{number}]"), "invalid JSON in header")
    rejected(tensor_file(offsets=f"[{number},4]"), "invalid JSON in header")
    rejected(tensor_file(offsets=f"[0,{number}]"), "invalid JSON in header")


@pytest.mark.parametrize("offsets", ["[]", "[0]", "[0,4,4]", "null", '{"0":0,"1":4}', "4"])
def test_offsets_are_two(offsets):
    rejected(tensor_file(offsets=offsets), "invalid JSON in header")


def test_the_largest_integer():
    header = parse(tensor_file(shape=f"[0,{2**64 - 1}]", offsets="[0,0]", data=b""))
    assert header.shapes() == [(0, 2**64 - 1)]


TWO = '{{"a":["U8",[{0}],[{1}]],"b":["U8",[{2}],[{3}]]}}'


@pytest.mark.parametrize(
    ("entries", "guilty"),
    [
        (("4", "4,8", "0", "8,8"), "a"),  # does not begin at 0
        (("4", "0,4", "3", "5,8"), "b"),  # a hole
        (("4", "0,4", "5", "3,8"), "b"),  # an overlap
        (("8", "0,8", "0", "8,4"), "b"),  # ends before it begins
    ],
)
def test_tensors_tile_the_data(entries, guilty):
    text = rejected(file_of(TWO.format(*entries), bytes(8)), f"invalid offset for tensor `{guilty}`")
    assert "expected" in text


def test_names_with_nul_do_not_cut_errors_short():
    text = rejected(file_of('{"a\\u0000b\\u0000":["U8",[1],[1,2]]}', b"12"), "invalid offset for tensor `a\\0b\\0`")
    assert text.endswith("got [1, 2]")


def test_the_same_range_twice():
    rejected(file_of(TWO.format("4", "0,4", "4", "0,4"), bytes(4)), "invalid offset for tensor `b`")


def test_header_order_is_free_and_empty_tensors_keep_theirs():
    empty = '["U8",[0],[0,0]]'
    text = f'{{"late":["U8",[4],[4,8]],"z":{empty},"early":["U8",[4],[0,4]],"y":{empty},"end":["U8",[0],[8,8]]}}'
    header = parse(file_of(text, bytes(8)))
    assert header.names() == ["z", "y", "early", "late", "end"]
    assert [header.index(name) for name in header.names()] == list(range(5))


@pytest.mark.parametrize("dtype", BITS)
def test_sizes(dtype):
    nbytes = 12 * BITS[dtype] // 8
    header = parse(tensor_file(f'"{dtype}"', "[3,4]", f"[0,{nbytes}]", data=bytes(nbytes)))
    assert header.dtypes() == [dtype]
    assert header.nbytes() == [nbytes]
    text = rejected(tensor_file(f'"{dtype}"', "[4,4]", f"[0,{nbytes}]", data=bytes(nbytes)), "invalid shape, data type")
    assert "tensor `a`" in text
    assert f"{dtype} [4, 4]" in text


@pytest.mark.parametrize("dtype", ['"F31"', '"f32"', '""', "11", "null", '["F32"]', "{}", '{"F32":{}}', '{"F32":1}'])
def test_unknown_types(dtype):
    rejected(tensor_file(dtype), "invalid JSON in header")


def test_other_spellings_of_a_type():
    assert parse(tensor_file('{"F32": null}')).dtypes() == ["F32"]
    assert parse(tensor_file('"\\u00463\\u0032"')).dtypes() == ["F32"]
    rejected(tensor_file('{"F32":null,"F32":null}'), "invalid JSON in header")


@pytest.mark.parametrize(("dtype", "shape"), [("F4", "[1]"), ("F4", "[3]"), ("F6_E2M3", "[2]"), ("F6_E3M2", "[3]")])
def test_whole_bytes(dtype, shape):
    rejected(tensor_file(f'"{dtype}"', shape, "[0,0]", data=b""), "The slice is slicing for subbytes dtypes")


@pytest.mark.parametrize("shape", [f"[{2**64 - 1},2]", f"[{2**63},2,0]", f"[{2**62}]"])
def test_overflow_is_checked_from_left_to_right(shape):
    rejected(tensor_file(shape=shape, offsets="[0,0]", data=b""), "overflow computing buffer size")


def test_zero_first_cannot_overflow():
    assert len(parse(tensor_file(shape=f"[0,{2**63},4]", offsets="[0,0]", data=b""))) == 1


@pytest.mark.parametrize("data", [b"", b"123", b"12345"])
def test_the_data_ends_with_the_file(data):
    text = rejected(tensor_file(data=data), "incomplete metadata, file not fully covered")
    assert "MetadataIncompleteBuffer" in text
    assert "expected 4 bytes" in text
    assert text.endswith(f"has {len(data)}")


def test_the_last_of_equal_names_wins():
    def twice(second):
        return file_of(f'{{"a":["F32",[1],[0,4]],"a":{second}}}', b"1234")

    assert parse(twice('["F32",[1],[0,4]]')).dtypes() == ["F32"]
    assert parse(twice('["I16",[2],[0,4]]')).shapes() == [(2,)]
    assert parse(file_of('{"a":["F32",[9],[7,4]],"\\u0061":["I8",[4],[0,4]]}', b"1234")).dtypes() == ["I8"]
    rejected(twice('["F32",[1],[4,8]]'), "invalid offset for tensor `a`")
    rejected(twice("3"), "invalid JSON in header")


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("", ""),
        ("\\u0000", "\0"),
        ('a\\u0000b\\n\\t\\"\\\\\\/\\b\\f\\r tail', 'a\0b\n\t"\\/\b\f\r tail'),
        ("\\uD83D\\uDE00\\u00e9\\u20AC", "😀é€"),
    ],
)
def test_names_with_escapes(spelled, name):
    header = parse(file_of(f'{{"{spelled}":["U8",[0],[0,0]],"plain":["U8",[0],[0,0]]}}'))
    assert header.names() == [name, "plain"]
    assert header.index(name) == 0


@pytest.mark.parametrize("rank", [0, 1, 65, 1000])
def test_any_rank(rank):
    shape = "[" + ",".join(["1"] * rank) + "]"
    assert parse(tensor_file(shape=shape)).shapes() == [(1,) * rank]


def test_many_names_are_found():
    count = 20_000
    entries = ",".join(f'"block.{i}.weight":["U8",[1],[{count - 1 - i},{count - i}]]' for i in range(count))
    header = parse(file_of("{" + entries + "}", bytes(count)))
    assert header.names() == [f"block.{i}.weight" for i in reversed(range(count))]
    assert all(header.index(f"block.{i}.weight") == count - 1 - i for i in range(count))


def test_only_bytes_are_parsed():
    for wrong in ("{}", None, 3):
        with pytest.raises(TypeError):
            parse(wrong)
