"""Damages safetensors files at random: their bytes, their tokens, their JSON, their lengths, two of them spliced."""

from __future__ import annotations

import random
import re
import struct

from header_edits import edited
from header_seeds import DATA_NBYTES, SEEDS

TOKENS = ["0", "1", "4", "8", "12", "-", ".", "e1", ",", ":", "[", "]", "{", "}", '"', "\\", "\\u0041", "\\ud800", " "]
TOKENS += ["null", "true", "1.0", "18446744073709551615", "18446744073709551616", '"x":', '"dtype":"U8",', "\0", "é"]
TOKENS += ['"a":["U8",[0],[0,0]],', '"shape":[1],', '"__metadata__":null,', '"F32"', '"BF16"', "\x1f", "1e400", "\x7f"]
TOKENS += ["\ufeff", "\\/", "\\u00e9", "\\udc00", "\\uD83D\\uDE00", "[0,0]", "{}", "-0", "1e0", "//", "'", "NaN"]
PIECE = re.compile(rb'"(?:[^"\\]|\\.)*"|[-+.\w]+|\s+|.', re.DOTALL)


def mutant(rng: random.Random) -> bytes:
    """A file near one of the seeds; about every fourth is a good one."""
    which = rng.randrange(len(SEEDS))
    data_nbytes = DATA_NBYTES[which]
    level = rng.randrange(20)
    if level < 9:
        header, data_nbytes = edited(rng, which)
    elif level < 12:
        header = with_tokens_changed(rng, SEEDS[which].encode())
    elif level < 16:
        header = with_bytes_changed(rng, SEEDS[which].encode())
    elif level < 18:
        header = spliced(rng, which)
    else:
        header = SEEDS[which].encode()
    if rng.randrange(40) == 0:
        header = with_bytes_changed(rng, header)
    return enclosed(rng, header, data_nbytes, damage=level >= 18 or rng.randrange(16) == 0)


def enclosed(rng: random.Random, header: bytes, data_nbytes: int, damage: bool) -> bytes:
    """Length field, header and data; with ``damage`` one of the three does not fit the others."""
    announced = len(header)
    data = rng.randbytes(data_nbytes)
    if damage:
        match rng.randrange(8):
            case 0:
                announced += rng.choice((-9, -8, -2, -1, 1, 2, 8, 9))
            case 1:
                announced = rng.choice((0, 1, 2, 7, 100_000_000, 100_000_001, 2**32, 2**63, 2**64 - 1))
            case 2:
                data = data[: rng.randrange(len(data) + 1)]
            case 3:
                data += rng.randbytes(rng.choice((1, 7, 8, 64)))
            case 4:
                header += rng.choice((b" ", b"\0", b"\n\t ", b"\0\0\0", b"}", b"\xff"))
                announced = len(header)
            case 5:
                header = rng.choice((b" ", b"\n", b"\xef\xbb\xbf", b"\0", b"[")) + header
                announced = len(header)
            case 6:
                return (struct.pack("<Q", announced) + header + data)[: rng.randrange(20)]
            case 7:
                whole = struct.pack("<Q", announced) + header + data
                return whole[: rng.randrange(len(whole) + 1)]
    return struct.pack("<Q", announced % 2**64) + header + data


def with_bytes_changed(rng: random.Random, header: bytes) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(header) + 1)
        match rng.randrange(6):
            case 0:
                header = header[:at] + bytes([rng.randrange(256)]) + header[at + 1 :]
            case 1:
                header = header[:at] + rng.choice(TOKENS).encode() + header[at:]
            case 2:
                header = header[:at] + header[at + rng.randrange(1, 12) :]
            case 3:
                to = rng.randrange(len(header) + 1)
                header = header[:to] + header[at : at + rng.randrange(1, 40)] + header[to:]
            case 4:
                digits = [i for i, byte in enumerate(header) if byte in b"0123456789"]
                if digits:
                    i = rng.choice(digits)
                    header = header[:i] + rng.choice((b"0", b"1", b"2", b"4", b"8", b"9")) + header[i + 1 :]
            case 5:
                flipped = bytes([header[at] ^ (1 << rng.randrange(8))]) if at < len(header) else b""
                header = header[:at] + flipped + header[at + 1 :]
    return header


def with_tokens_changed(rng: random.Random, header: bytes) -> bytes:
    pieces = PIECE.findall(header)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(pieces))
        other = rng.randrange(len(pieces))
        match rng.randrange(5):
            case 0:
                pieces[at] = b""
            case 1:
                pieces[at] = pieces[at] * 2
            case 2:
                pieces[at], pieces[other] = pieces[other], pieces[at]
            case 3:
                pieces[at] = pieces[other]
            case 4:
                pieces[at] = rng.choice(TOKENS).encode()
    return b"".join(pieces)


def spliced(rng: random.Random, which: int) -> bytes:
    first, second = SEEDS[which].encode(), rng.choice(SEEDS).encode()
    return first[: rng.randrange(len(first) + 1)] + second[rng.randrange(len(second) + 1) :]
