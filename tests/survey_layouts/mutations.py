"""Ways in which files get damaged: each takes bytes and a random generator, and gives bytes."""

import gzip
import re

import numpy as np

BLOCK, CARD = 2880, 80


def truncated(data, rng):
    return data[: rng.integers(0, len(data))]


def truncated_by_little(data, rng):
    return data[: len(data) - rng.integers(1, min(len(data), 3000))]


def flipped_bits(data, rng):
    out = bytearray(data)
    for at in rng.integers(0, len(out), rng.integers(1, 20)):
        out[at] ^= 1 << int(rng.integers(8))
    return bytes(out)


def random_bytes(data, rng):
    out = bytearray(data)
    for at in rng.integers(0, len(out), rng.integers(1, 50)):
        out[at] = rng.integers(256)
    return bytes(out)


def flipped_header(data, rng):
    """Bits of the first header alone, where there is most to misread."""
    out = bytearray(data)
    for at in rng.integers(0, min(len(out), 4 * BLOCK), rng.integers(1, 10)):
        out[at] ^= 1 << int(rng.integers(8))
    return bytes(out)


def zeros_inside(data, rng):
    start, size = rng.integers(0, len(data)), rng.integers(1, 4096)
    return data[:start] + b"\0" * len(data[start : start + size]) + data[start + size :]


def ones_inside(data, rng):
    start, size = rng.integers(0, len(data)), rng.integers(1, 4096)
    return data[:start] + b"\xff" * len(data[start : start + size]) + data[start + size :]


def swapped_blocks(data, rng):
    n = -(-len(data) // BLOCK)
    one, other = rng.integers(0, n, 2)
    blocks = [data[i * BLOCK : (i + 1) * BLOCK] for i in range(n)]
    blocks[one], blocks[other] = blocks[other], blocks[one]
    return b"".join(blocks)


def deleted_bytes(data, rng):
    start, size = rng.integers(0, len(data)), rng.integers(1, 200)
    return data[:start] + data[start + size :]


def deleted_block(data, rng):
    start = rng.integers(0, -(-len(data) // BLOCK)) * BLOCK
    return data[:start] + data[start + BLOCK :]


def doubled_block(data, rng):
    start = rng.integers(0, -(-len(data) // BLOCK)) * BLOCK
    return data[: start + BLOCK] + data[start:]


def line_ends_to_dos(data, rng):
    return data.replace(b"\n", b"\r\n")


def line_ends_to_unix(data, rng):
    return data.replace(b"\r\n", b"\n")


def lines_shuffled(data, rng):
    lines = data.split(b"\n")
    at = rng.integers(0, len(lines), 2)
    lines[at[0]], lines[at[1]] = lines[at[1]], lines[at[0]]
    return b"\n".join(lines)


def column_missing(data, rng):
    """The last column of a text file, from some line on."""
    lines = data.split(b"\n")
    start = rng.integers(0, len(lines))
    cut = [re.sub(rb"[,\s]+\S+\s*$", b"", line) for line in lines[start:]]
    return b"\n".join(lines[:start] + cut)


def cards(data):
    """Where the cards of all headers begin that have a value."""
    return [m.start() for m in re.finditer(rb"(?<![^\x00])[A-Z][A-Z0-9_-]{0,7} *= ", data)] or [
        at for at in range(0, len(data), CARD) if data[at + 8 : at + 10] == b"= "
    ]


VALUES = [
    "1000000000", "2147483647", "-1", "0", "1", "3", "99999999999999999999", "NaN", "1E400", "-64",
    "'1E9'", "'PE(1000000000)'", "'QD'", "'X'", "'99999999E'", "T", "'", "", "'nonsense '",
]  # fmt: off
STRUCTURE = re.compile(
    rb"(NAXIS\d?|BITPIX|PCOUNT|GCOUNT|TFIELDS|TFORM\d+|TTYPE\d+|TDIM\d+|BZERO|BSCALE|THEAP|EXTNAME|"
    rb"CRVAL\d|CDELT\d|CD\d_\d|CRPIX\d|COEFF\d|DC-FLAG|CTYPE\d|TELESCOP|XTENSION|TNULL\d+|TZERO\d+|"
    rb"TSCAL\d+|WAT\d_\d+|Z|RV|EXTEND|CUNIT\d|BUNIT|TUNIT\d+)\s*$"
)


def changed_card(data, rng):
    """Another value in a card, mostly one that tells of the structure."""
    places = [at for at in range(0, len(data) - CARD, CARD) if data[at + 8 : at + 10] == b"= "]
    if not places:
        return flipped_bits(data, rng)
    structural = [at for at in places if STRUCTURE.match(data[at : at + 8])]
    chosen = structural if structural and rng.random() < 0.8 else places
    at = chosen[rng.integers(len(chosen))]
    value = VALUES[rng.integers(len(VALUES))]
    line = data[at : at + 10] + value.rjust(20).encode()
    return data[:at] + line.ljust(CARD)[:CARD] + data[at + CARD :]


def removed_card(data, rng):
    places = [at for at in range(0, len(data) - CARD, CARD) if data[at + 8 : at + 10] == b"= "]
    if not places:
        return deleted_bytes(data, rng)
    at = places[rng.integers(len(places))]
    return data[:at] + b" " * CARD + data[at + CARD :]


def no_numbers(data, rng):
    """NaN, infinity or huge numbers, big-endian as FITS has them."""
    out = bytearray(data)
    value = rng.choice([np.nan, np.inf, -1e33, 1e35, 0.0])
    kind = rng.choice([">f4", ">f8"])
    piece = np.full(rng.integers(1, 300), value, dtype=kind).tobytes()
    start = rng.integers(0, len(out)) // 4 * 4
    out[start : start + len(piece)] = piece[: len(out) - start]
    return bytes(out)


def compressed_and_cut(data, rng):
    packed = gzip.compress(data, compresslevel=1)
    return packed[: rng.integers(len(packed) // 2, len(packed))]


def compressed_and_flipped(data, rng):
    return flipped_bits(gzip.compress(data, compresslevel=1), rng)


def header_only(data, rng):
    return data[:BLOCK]


def garbage_at_the_end(data, rng):
    return data + rng.integers(0, 256, rng.integers(1, 5000), dtype=np.uint8).tobytes()


MUTATIONS = [
    value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__ and name not in ("cards",)
]
