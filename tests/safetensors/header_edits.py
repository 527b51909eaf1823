"""Changes to a header that leave it JSON: members dropped, repeated, renamed, numbers, types and shapes changed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

from header_bytes import BITS
from header_seeds import DATA_NBYTES, SEEDS

NAMES = ["a", "b", "", "\0", "é", "__metadata__", "dtype", "shape", "data_offsets", "x", "😀", "a.b"]
NUMBERS = ["0", "1", "2", "3", "4", "8", "16", "-1", "-0", "1.0", "1e0", "0e0", "01", "4294967296", str(2**63)]
NUMBERS += [str(2**63 - 1), str(2**64 - 1), str(2**64), "100000000000000000000", "1E2", "0.0", "-0.0", "1e-1"]


class Number(str):
    """A number as it is written."""


class Members(list):
    """An object: its (name, value) in the order they come, repeated ones too."""


VALUES = [None, True, False, Number("0"), Number("7"), Number("1.5"), "F32", "", [], Members(), [Number("1")]]
VALUES += [Members([("k", "v")]), Members([("F32", None)]), ["U8", [Number("0")], [Number("0"), Number("0")]]]
VALUES += [Number("1e308"), Number("1e309"), Number("-1.8e308"), Number("0e999"), Number("1" * 310)]  # doubles, or not


def parsed(text: str) -> Members:
    return json.loads(text, object_pairs_hook=Members, parse_int=Number, parse_float=Number, parse_constant=Number)


PARSED = [parsed(header) for header in SEEDS]


def copied(value: Any) -> Any:
    if isinstance(value, Members):
        return Members((name, copied(item)) for name, item in value)
    return [copied(item) for item in value] if type(value) is list else value


def some_value(rng: random.Random) -> Any:
    return copied(rng.choice(VALUES))


def edited(rng: random.Random, which: int) -> tuple[bytes, int]:
    """A header that is JSON whatever was done to it, and the size of its data; tiled anew more often than not."""
    header = copied(PARSED[which])
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        rng.choice(EDITS)(rng, header)
    data_nbytes = DATA_NBYTES[which]
    if rng.randrange(4):
        data_nbytes = tile(header, data_nbytes)
    if rng.randrange(4) == 0:
        rng.shuffle(header)
    return spelled(header, *spelling(rng)).encode(errors="surrogatepass"), data_nbytes


def tile(header: Members, otherwise: int) -> int:
    """Lays the tensors out one after the other, as far as they have a size; the size of it all, or ``otherwise``."""
    last = {name: entry for name, entry in header if name != "__metadata__"}
    end = 0
    for entry in last.values():
        fields = dict(zip(("dtype", "shape", "data_offsets"), entry, strict=False)) if type(entry) is list else {}
        fields = dict(entry) if isinstance(entry, Members) else fields
        dtype, shape, offsets = (fields.get(name) for name in ("dtype", "shape", "data_offsets"))
        if not isinstance(dtype, str) or dtype not in BITS or type(shape) is not list or type(offsets) is not list:
            continue
        if not all(isinstance(dim, Number) and dim.isdecimal() for dim in shape):
            continue
        begin, end = end, end + math.prod(map(int, shape)) * BITS[dtype] // 8
        offsets[:] = [Number(begin), Number(end)]
    return end if end <= 1 << 16 else otherwise


def spelling(rng: random.Random) -> tuple[str, str, Callable[[str], str]]:
    """Separators and the way strings are written."""
    comma, colon = rng.choice(((",", ":"), (",", ":"), (" ,\n\t", " : "), (",\r\n", ": ")))
    return comma, colon, rng.choice((json.dumps, raw_string, raw_string, escaped_string))


def raw_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def escaped_string(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass")
    return '"' + "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2)) + '"'


def spelled(value: Any, comma: str, colon: str, string: Callable[[str], str]) -> str:
    if isinstance(value, Members):
        members = (string(name) + colon + spelled(item, comma, colon, string) for name, item in value)
        return "{" + comma.join(members) + "}"
    if isinstance(value, list):
        return "[" + comma.join(spelled(item, comma, colon, string) for item in value) + "]"
    if isinstance(value, Number):
        return value
    return string(value) if isinstance(value, str) else json.dumps(value)


def tensors_of(header: Members) -> list[int]:
    """Where in the header the tensors are."""
    return [place for place, (name, _) in enumerate(header) if name != "__metadata__"]


def some_entry(rng: random.Random, header: Members) -> Any:
    places = tensors_of(header)
    return header[rng.choice(places)][1] if places else None


def some_list(rng: random.Random, header: Members) -> list[Any]:
    """The header, or a tensor in it."""
    entry = some_entry(rng, header)
    return entry if isinstance(entry, list) and rng.randrange(2) else header


def field(entry: Any, name: str) -> Any:
    if isinstance(entry, Members):
        return dict(entry).get(name)
    return entry[("dtype", "shape", "data_offsets").index(name)] if type(entry) is list and len(entry) > 2 else None


def set_field(entry: Any, name: str, value: Any) -> None:
    if isinstance(entry, Members):
        entry[:] = [(key, value if key == name else item) for key, item in entry]
    elif type(entry) is list and len(entry) > 2:
        entry[("dtype", "shape", "data_offsets").index(name)] = value


def drop_a_member(rng: random.Random, header: Members) -> None:
    among = some_list(rng, header)
    if among:
        among.pop(rng.randrange(len(among)))


def repeat_a_member(rng: random.Random, header: Members) -> None:
    among = some_list(rng, header)
    if among:
        again = copied(Members([rng.choice(among)]) if isinstance(among, Members) else [rng.choice(among)])
        among.insert(rng.randrange(len(among) + 1), again[0])


def reorder_members(rng: random.Random, header: Members) -> None:
    entry = some_entry(rng, header)
    if isinstance(entry, Members):
        rng.shuffle(entry)


def rename(rng: random.Random, header: Members) -> None:
    among = some_list(rng, header)
    if isinstance(among, Members) and among:
        at = rng.randrange(len(among))
        name = rng.choice((rng.choice(NAMES), rng.choice(among)[0], among[at][0] + "\u0301"))
        among[at] = (name, among[at][1])


def change_a_number(rng: random.Random, header: Members) -> None:
    numbers = field(some_entry(rng, header), rng.choice(("shape", "data_offsets")))
    if type(numbers) is list and numbers:
        at = rng.randrange(len(numbers))
        old = int(numbers[at]) if isinstance(numbers[at], Number) and numbers[at].isdecimal() else 0
        near = Number(max(0, old + rng.choice((-8, -4, -2, -1, 1, 2, 4, 8))))
        numbers[at] = rng.choice((near, near, Number(rng.choice(NUMBERS)), some_value(rng)))


def change_a_length(rng: random.Random, header: Members) -> None:
    numbers = field(some_entry(rng, header), rng.choice(("shape", "shape", "data_offsets")))
    if type(numbers) is list:
        if numbers and rng.randrange(2):
            numbers.pop(rng.randrange(len(numbers)))
        else:
            numbers.insert(rng.randrange(len(numbers) + 1), Number(rng.choice(NUMBERS[:6])))


def change_a_dtype(rng: random.Random, header: Members) -> None:
    dtype = rng.choice(list(BITS))
    spellings = (dtype, dtype, dtype, Members([(dtype, None)]), dtype.lower(), Members([(dtype, "")]), "F31", [dtype])
    set_field(some_entry(rng, header), "dtype", rng.choice(spellings))


def swap_offsets(rng: random.Random, header: Members) -> None:
    first, second = some_entry(rng, header), some_entry(rng, header)
    offsets = field(first, "data_offsets"), field(second, "data_offsets")
    set_field(first, "data_offsets", offsets[1])
    set_field(second, "data_offsets", offsets[0])


def change_form(rng: random.Random, header: Members) -> None:
    """An object becomes a list and a list an object."""
    places = tensors_of(header)
    if not places:
        return
    at = rng.choice(places)
    name, entry = header[at]
    if isinstance(entry, Members):
        header[at] = (name, [field(entry, part) for part in ("dtype", "shape", "data_offsets")])
    elif type(entry) is list:
        header[at] = (name, Members(zip(("dtype", "shape", "data_offsets"), entry, strict=False)))


def add_a_field(rng: random.Random, header: Members) -> None:
    entry = some_entry(rng, header)
    value = some_value(rng)
    if isinstance(entry, Members):
        entry.insert(rng.randrange(len(entry) + 1), (rng.choice(("x", "", "Shape", "dtype ", "shape")), value))
    elif type(entry) is list:
        entry.append(value)


def add_a_tensor(rng: random.Random, header: Members) -> None:
    numbers = [Number(rng.choice(NUMBERS[:4])) for _ in range(rng.randrange(4))]
    at = Number(rng.choice((0, 4, 8, 12)))
    entry = [rng.choice(list(BITS)), rng.choice((numbers, [Number("0")])), [at, at]]
    header.insert(rng.randrange(len(header) + 1), (rng.choice(NAMES), rng.choice((entry, some_value(rng)))))


def take_from_another(rng: random.Random, header: Members) -> None:
    name, value = rng.choice(rng.choice(PARSED))
    header.insert(rng.randrange(len(header) + 1), (name, copied(value)))


def change_metadata(rng: random.Random, header: Members) -> None:
    metadata = next((value for name, value in header if name == "__metadata__"), None)
    value = rng.choice(("", "v", "\0é😀", "\ud800", some_value(rng)))
    if isinstance(metadata, Members) and rng.randrange(3):
        metadata.append((rng.choice(NAMES), value))
    else:
        whole = rng.choice((None, Members(), Members([("k", value)]), some_value(rng)))
        header.insert(rng.randrange(len(header) + 1), ("__metadata__", whole))


def replace_a_value(rng: random.Random, header: Members) -> None:
    entry = some_entry(rng, header)
    set_field(entry, rng.choice(("dtype", "shape", "data_offsets")), some_value(rng))


EDITS = [drop_a_member, repeat_a_member, reorder_members, rename, change_a_number, change_a_number, change_a_length]
EDITS += [change_a_dtype, swap_offsets, change_form, add_a_field, add_a_tensor, take_from_another, change_metadata]
EDITS += [replace_a_value]
