"""Files to begin with: bad ones and odd ones by name, and good ones to damage."""

import json
import math
import struct

from header_bytes import BITS, file_of, tensor_file

ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'

NAMED = {
    "N is 0": struct.pack("<Q", 0),
    "N is 2^63": struct.pack("<Q", 2**63) + b"{}",
    "N is 2^64-1": struct.pack("<Q", 2**64 - 1) + b"{}",
    "N is one too large": struct.pack("<Q", 100_000_001) + b"{}",
    "header shorter than N": struct.pack("<Q", 10) + b"{}",
    "empty file": b"",
    "seven bytes": b"\0" * 7,
    "NUL padding": file_of(f'{{"a":{ENTRY}}}\0\0', b"1234"),
    "space padding": file_of(f'{{"a":{ENTRY}}}  \n', b"1234"),
    "leading space": file_of(f' \t\n{{"a":{ENTRY}}}', b"1234"),
    "BOM": file_of(f'\ufeff{{"a":{ENTRY}}}', b"1234"),
    "array header": file_of("[]"),
    "null header": file_of("null"),
    "number header": file_of("1"),
    "no tensors": file_of("{}"),
    "no tensors but data": file_of("{}", b"x"),
    "duplicate metadata": file_of('{"__metadata__":{},"__metadata__":{}}'),
    "metadata null": file_of('{"__metadata__":null}'),
    "metadata empty": file_of('{"__metadata__":{}}'),
    "metadata number": file_of('{"__metadata__":{"a":1}}'),
    "metadata list": file_of('{"__metadata__":[]}'),
    "metadata null value": file_of('{"__metadata__":{"a":null}}'),
    "metadata object value": file_of('{"__metadata__":{"a":{}}}'),
    "metadata string": file_of('{"__metadata__":"a"}'),
    "metadata duplicate key": file_of('{"__metadata__":{"a":"1","a":"2"}}'),
    "metadata after tensors": file_of(f'{{"a":{ENTRY},"__metadata__":{{"k":"v"}}}}', b"1234"),
    "metadata as a tensor": file_of(f'{{"__metadata__":{ENTRY}}}', b"1234"),
    "duplicate name": file_of(f'{{"a":{ENTRY},"a":{ENTRY}}}', b"1234"),
    "duplicate name that differs": file_of(f'{{"a":{ENTRY},"a":["F32",[1],[4,8]]}}', b"12341234"),
    "duplicate name, the last is right": file_of(f'{{"a":["F32",[1],[4,8]],"a":{ENTRY}}}', b"1234"),
    "duplicate field": tensor_file(extra='"dtype":"F32",'),
    "duplicate unknown field": tensor_file(extra='"x":1,"x":2,'),
    "offsets of 1": tensor_file(offsets="[0]"),
    "offsets of 3": tensor_file(offsets="[0,4,4]"),
    "float dim": tensor_file(shape="[1.0]"),
    "exponent dim": tensor_file(shape="[1e0]"),
    "negative zero": tensor_file(offsets="[-0,4]"),
    "negative zero dim": tensor_file(shape="[-0]", offsets="[0,0]", data=b""),
    "negative dim": tensor_file(shape="[-1]"),
    "string dim": tensor_file(shape='["1"]'),
    "string offset": tensor_file(offsets='["0",4]'),
    "null dim": tensor_file(shape="[null]"),
    "dim beyond 64 bits": tensor_file(shape="[0,18446744073709551616]", offsets="[0,0]", data=b""),
    "0 x overflow": tensor_file(shape=f"[0,{2**64 - 1},{2**64 - 1}]", offsets="[0,0]", data=b""),
    "overflow x 0": tensor_file(shape=f"[{2**64 - 1},2,0]", offsets="[0,0]", data=b""),
    "overflow by the element size": tensor_file(shape=f"[{2**60}]", offsets="[0,0]", data=b""),
    "end before begin": tensor_file(offsets="[4,0]"),
    "first begin is not 0": tensor_file(offsets="[4,8]", data=bytes(8)),
    "a hole": file_of('{"a":["U8",[1],[0,1]],"b":["U8",[1],[2,3]]}', b"123"),
    "an overlap": file_of('{"a":["U8",[2],[0,2]],"b":["U8",[2],[1,3]]}', b"123"),
    "the same range twice": file_of('{"a":["U8",[2],[0,2]],"b":["U8",[2],[0,2]]}', b"12"),
    "rank 65": tensor_file(shape="[" + ",".join(["1"] * 65) + "]"),
    "rank 100": tensor_file(shape="[" + ",".join(["1"] * 100) + "]"),
    "odd header length": file_of(f'{{"ab":{ENTRY}}}', b"1234"),
    "BOOL byte 7": tensor_file('"BOOL"', "[1]", "[0,1]", data=b"\7"),
    "F6": tensor_file('"F6_E2M3"', "[4]", "[0,3]", data=b"123"),
    "F6 in part of a byte": tensor_file('"F6_E3M2"', "[3]", "[0,2]", data=b"12"),
    "F4 in part of a byte": tensor_file('"F4"', "[3]", "[0,1]", data=b"1"),
    "unknown dtype": tensor_file('"F31"'),
    "dtype in small letters": tensor_file('"f32"'),
    "dtype as a map": tensor_file('{"F32":null}'),
    "list form": file_of('{"a":["F32",[1],[0,4]]}', b"1234"),
    "lone surrogate": file_of(f'{{"\\ud800":{ENTRY}}}', b"1234"),
    "surrogate pair": file_of(f'{{"\\ud83d\\ude00":{ENTRY}}}', b"1234"),
    "raw surrogate": file_of(b'{"\xed\xa0\x80":1}'),
    "overlong": file_of(b'{"\xc0\x80":1}'),
    "NUL name": file_of(f'{{"\\u0000":{ENTRY}}}', b"1234"),
    "empty name": file_of(f'{{"":{ENTRY}}}', b"1234"),
    "NaN": tensor_file(extra='"x":NaN,'),
    "too deep": tensor_file(extra='"x":' + "[" * 126 + "]" * 126 + ","),
    "deep": tensor_file(extra='"x":' + "[" * 125 + "]" * 125 + ","),
    "data too long": tensor_file(data=b"12345"),
    "data too short": tensor_file(data=b"123"),
}


def tiled(tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None = None) -> str:
    """The header safetensors would write: compact, one tensor after the other, spaces up to a multiple of 8."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    begin = 0
    for name, (dtype, shape) in tensors.items():
        end = begin + math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
    return text + " " * (-len(text.encode()) % 8)


def nbytes_of(header: str) -> int:
    """Of the data behind one of these headers."""
    entries = [value for name, value in json.loads(header).items() if name != "__metadata__"]
    return max((entry[2] if isinstance(entry, list) else entry["data_offsets"])[1] for entry in entries)


LORA = {
    f"lora_unet_down_blocks_1_attentions_0_{part}.{role}": (dtype, shape)
    for part in ("proj_in", "transformer_blocks_0_attn1_to_q")
    for role, dtype, shape in (
        ("alpha", "BF16", []),
        ("lora_down.weight", "BF16", [2, 5]),
        ("lora_up.weight", "BF16", [3, 2]),
    )
}
PEFT = {
    f"base_model.model.model.layers.{layer}.self_attn.{name}_proj.lora_{side}.weight": ("F32", shape)
    for layer in (0, 11)
    for name in "qv"
    for side, shape in (("A", [1, 3]), ("B", [2, 1]))
}
KOHYA_METADATA = {
    "ss_network_module": "networks.lora",
    "ss_network_alpha": "8.0",
    "ss_tag_frequency": '{"10_a \\"b\\"": {"tag": 3}}',
    "modelspec.title": "été — 山 😀",
    "sshs_model_hash": "0" * 16,
    "": "\t\n",
}
EMPTY = {"e0": ("U8", [0, 7]), "a": ("I16", [2]), "e1": ("F32", [3, 0]), "e2": ("F8_E5M2", [0]), "b": ("U8", [1])}

SEEDS = [
    '{"__metadata__":{"format":"pt","k\\n":"\\u00e9"},"a.b":["BF16",[2,2],[0,8]],"c":["F32",[],[8,12]]}',
    '{"x":{"dtype":"F16","shape":[2],"data_offsets":[8,12]},"y\\ud83d\\ude00":{"note":[1.5e3,{"z":null},"s"],'
    '"data_offsets":[0,8],"shape":[1,1],"dtype":"I64"}}',
    '{ "empty" : {"dtype":"U8","shape":[0,7],"data_offsets":[0,0]}, "é" : ["F8_E4M3", [3,4], [0,12]]}',
    '{"f4":["F4",[2,4],[0,4]],"f6":["F6_E2M3",[4],[4,7]],"c":["C64",[],[7,15]],"b":["BOOL",[1],[15,16]]}',
    tiled(LORA, KOHYA_METADATA),
    tiled(LORA, {"format": "pt"}),
    tiled(PEFT, {"format": "pt"}),
    tiled({name: (name, [4]) for name in BITS}),
    tiled({f"scalar.{name}": (name, []) for name in BITS if BITS[name] >= 8}),
    tiled(EMPTY),
    tiled({"": ("I8", [3]), "\0": ("I8", [1]), "é\u0301\u2028": ("U16", [1]), "\U0010ffff": ("F64", [1, 1, 1])}),
    '\n\t{\r\n"\\u0061\\/\\"" : { "shape" : [ 1 , 2 ] , "data_offsets":[0 , 2 ],"x":{"shape":[-1e-5]},'
    '"dtype" : {"U8":null} }, "__\\u006detadata__" : null }  \n',
]
DATA_NBYTES = [nbytes_of(header) for header in SEEDS]
