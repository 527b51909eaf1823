"""What the fuzzer begins with, from the tests' own inputs and from the key tables: ``seeds.py FOLDER``.

Writes a folder of inputs per target, and the dictionary keys.dict. PYTHONPATH has to name tests/safetensors and
tests/keys.
"""

import hashlib
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

import test_hostile_names
import test_patterns
import test_suffixes
from header_bytes import file_of
from header_seeds import DATA_NBYTES, NAMED, SEEDS
from key_tables import ROLES, examples

from lora_mmap.families import key_tables

REGRESSIONS = Path(__file__).parent / "regressions"  # what a target once failed on, by target
PATH = "transformer_blocks.0.attn.to_q"

# Sizes that are right modulo 2^64 in bits or bytes: what overflow has to stop, and little else does.
WRAPPED = [
    file_of('{"a":["U8",[18446744073709551615,18446744073709551615],[0,1]]}', b"1"),
    file_of('{"a":["U8",[9223372036854775808,2],[0,0]]}'),
    file_of('{"a":["U8",[2305843009213693953],[0,1]]}', b"1"),
    file_of('{"a":["F64",[288230376151711745],[0,8]]}', bytes(8)),
    file_of('{"a":["U8",[1],[0,1]],"b":["U8",[18446744073709551615],[1,0]]}', b"1"),
]


def as_json(file: bytes) -> bytes:
    """A file whose length field is right as header_target's second mode has it."""
    nbytes = struct.unpack("<Q", file[:8])[0]
    return b"\1" + struct.pack("<H", len(file) - 8 - nbytes) + file[8 : 8 + nbytes]


def header_seeds() -> Iterable[bytes]:
    files = [file_of(text, bytes(nbytes)) for text, nbytes in zip(SEEDS, DATA_NBYTES, strict=True)]
    for file in [*files, *WRAPPED, *NAMED.values()]:
        yield b"\0" + file
        if len(file) >= 8 and struct.unpack("<Q", file[:8])[0] <= len(file) - 8:
            yield as_json(file)


def parametrized(test: object) -> list[tuple]:
    """The rows of a test's table."""
    return [row if isinstance(row, tuple) else (row,) for row in test.pytestmark[0].args[1]]


def key_seeds() -> Iterable[bytes]:
    tables = key_tables()
    endings = {suffix.pattern: examples(suffix.pattern) for suffix in tables.suffixes}
    paths = [path for rule in tables.rules for path in examples(rule.pattern)]
    lists = [[PATH + ending for ending in texts] for texts in endings.values()]
    for number, prefix in enumerate(tables.prefixes):
        path = paths[number % len(paths)]
        spelled = prefix.pattern + (path.replace(".", "_") if prefix.pattern.endswith("_") else path)
        lists.append([spelled + ending for ending in (".lora_down.weight", ".lora_up.weight", ".alpha")])
        lists.append([f"{outer.pattern}{spelled}.lora_A.weight" for outer in tables.prefixes[::5]])
    lists += [[f"{path}.lora_A", f"{path}.lora_B", f"{path.replace('.', '_')}_.alpha"] for path in paths]
    lists.append(["model." * count + PATH + ".lora_A.weight" for count in (2, 15, 16, 17)])
    lists += [[PATH + row[0]] for row in parametrized(test_suffixes.test_spellings)]
    lists.append([row[0] for row in parametrized(test_suffixes.test_no_adapter_keys)])
    # Longer ones than the fuzzer mutates are the tests' own.
    hostile = [stem for stem in test_hostile_names.HOSTILE.values() if len(stem) < 100]
    lists += [
        [f"{stem}.lora_A.weight", f"{PATH}.{stem}.alpha", f"lora_unet_{stem}_.lora_up.weight"] for stem in hostile
    ]
    for keys in lists:
        yield "\n".join(keys).encode()


def table_seeds() -> Iterable[bytes]:
    tables = key_tables()
    for pattern, template, stem, model in parametrized(test_patterns.test_what_matches):
        yield f"u.up\nr{pattern}\t{template}\nm{model}\nk{stem}.up".encode()
    for pattern, stem in parametrized(test_patterns.test_what_does_not):
        yield f"u.up\nr{pattern}\thit\nmhit\nk{stem}.up".encode()
    for pattern, _ in parametrized(test_patterns.test_malformed_patterns_say_why):
        yield f"u{pattern}\np{pattern}\nr{pattern}".encode()
        yield f"u.up\nr{pattern}\nka.up\nkb.up\nk10.up\nk100.up\nkxy.up".encode()
    for number, suffix in enumerate(tables.suffixes):
        prefix = tables.prefixes[number % len(tables.prefixes)].pattern
        rule = tables.rules[number % len(tables.rules)]
        ways = "".join("\t" + " ".join(way.paths) for way in rule.alternatives)
        (ending, *_), (path, *_) = examples(suffix.pattern), examples(rule.pattern)
        lines = [f"{ROLES.get(suffix.role, 'o')}{suffix.pattern}", f"p{prefix}", f"r{rule.pattern}{ways}"]
        lines += [f"m{path}", f"k{prefix}{path}{ending}", f"k{prefix}{prefix}{path}{ending}"]
        yield "\n".join(lines).encode()


def key_words() -> list[str]:
    tables = key_tables()
    words = [text for entry in (*tables.suffixes, *tables.prefixes) for text in examples(entry.pattern)]
    words += ["..", "__", ".00.", ".4294967296.", ".18446744073709551616.", "lora_unet_lora_unet_", "_.", "._"]
    return list(dict.fromkeys(words + [path for rule in tables.rules for path in examples(rule.pattern)]))


def write(folder: Path, seeds: Iterable[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found_once = (path.read_bytes() for path in (REGRESSIONS / folder.name).glob("*"))
    for seed in [*seeds, *found_once]:
        (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    write(root / "header", header_seeds())
    write(root / "keys", key_seeds())
    write(root / "tables", table_seeds())
    (root / "keys.dict").write_text("".join(f'"{word}"\n' for word in key_words()))
