"""Headers as another implementation of protobuf reads them: vectors for the Rust test that compares.

    headers.py PROTO GOLDEN OUT

Makes random headers from the descriptor, so that new fields are in them by themselves, takes the golden ones too, spoils the
bytes of each in some way that keeps or breaks its one spelling, and writes for each what Python's protobuf makes of it: a line
`malformed`, `other-spelling` or `canonical`, the bytes in hexadecimal, and of canonical ones what they say, field by field.
`CONCORD_BATTERY_SEED` is the seed, `CONCORD_BATTERY_COUNT` how many; the same seed makes the same file.
"""

import os
import random
import re
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from demo import Protocol

COUNT = 6000
# A larger header is refused unread; these are to be read.
SIZE_MAX_BYTES = 3000
# Letters that both sides' texts show as they are, and some that they escape.
ALPHABET = "abcXYZ019 /.-_:ąдКй中文한\\\"'\n\t\r\0"
NUMBERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}


class Maker:
    """Random messages of any type that has no maps, floats or groups, as the formats here."""

    def __init__(self, chance: random.Random):
        self.chance = chance

    def message(self, message):
        for field in message.DESCRIPTOR.fields:
            if self.chance.random() < 0.3:
                continue
            if field.is_repeated:
                for _ in range(self.chance.randrange(4)):
                    if field.type == FieldDescriptor.TYPE_MESSAGE:
                        self.message(getattr(message, field.name).add())
                    else:
                        getattr(message, field.name).append(self.value(field))
            elif field.type == FieldDescriptor.TYPE_MESSAGE:
                inner = getattr(message, field.name)
                inner.SetInParent()
                self.message(inner)
            else:
                setattr(message, field.name, self.value(field))
        return message

    def value(self, field):
        kind = field.type
        if kind == FieldDescriptor.TYPE_STRING:
            return "".join(self.chance.choices(ALPHABET, k=self.chance.randrange(12)))
        if kind == FieldDescriptor.TYPE_BYTES:
            return self.chance.randbytes(self.chance.choice([0, 1, 16, 32, 33]))
        if kind == FieldDescriptor.TYPE_BOOL:
            return self.chance.random() < 0.5
        if kind == FieldDescriptor.TYPE_ENUM:
            # One that no version of the format names, too.
            return self.chance.choice([value.number for value in field.enum_type.values] + [77, -1])
        low, high = NUMBERS[kind]
        return self.chance.choice([low, high, 0, 1, 127, 128, self.chance.randint(low, high)])


class Spoiler:
    """Changes bytes as a faulty, older, newer or hostile writer would."""

    def __init__(self, chance: random.Random):
        self.chance = chance
        self.ways = [
            self.flip, self.cut, self.insert, self.append, self.unknown, self.repeat, self.swap, self.long_tag, self.long_value,
            self.default, self.other_wire_type, self.not_text,
        ]

    def spoil(self, good: bytes) -> bytes:
        return self.chance.choice(self.ways)(good)

    def flip(self, good):
        if not good:
            return b"\x80"
        at = self.chance.randrange(len(good))
        return good[:at] + bytes([good[at] ^ 1 << self.chance.randrange(8)]) + good[at + 1 :]

    def cut(self, good):
        return good[: self.chance.randrange(len(good) + 1)]

    def insert(self, good):
        at = self.chance.randrange(len(good) + 1)
        return good[:at] + self.chance.randbytes(1) + good[at:]

    def append(self, good):
        return good + self.chance.randbytes(self.chance.randrange(1, 4))

    def unknown(self, good):
        field = self.chance.choice([b"\xa0\x06\x01", b"\xa2\x06\x00", b"\xa3\x06\xa4\x06", b"\xa5\x06\0\0\0\0", b"\x00\x00"])
        return field + good if self.chance.random() < 0.5 else good + field

    def repeat(self, good):
        fields = split(good)
        if not fields:
            return good
        return good + self.chance.choice(fields)

    def swap(self, good):
        fields = split(good)
        self.chance.shuffle(fields)
        return b"".join(fields)

    def long_tag(self, good):
        return self.in_field(good, lambda tag, rest: longer(tag) + rest)

    def long_value(self, good):
        def change(tag, rest):
            if tag[-1] & 7 == 0 or tag[-1] & 7 == 2:
                size = varint_size(rest, 0)
                return tag + longer(rest[:size]) + rest[size:]
            return tag + rest

        return self.in_field(good, change)

    def default(self, good):
        number = self.chance.randrange(1, 25)
        return good + varint(number << 3) + b"\0" if self.chance.random() < 0.5 else good + varint(number << 3 | 2) + b"\0"

    def other_wire_type(self, good):
        return self.in_field(good, lambda tag, rest: bytes([tag[0] ^ self.chance.choice([1, 2, 3, 5])]) + tag[1:] + rest)

    def not_text(self, good):
        return good + varint(self.chance.randrange(1, 25) << 3 | 2) + b"\x02\xc3\x28"

    def in_field(self, good, change):
        fields = split(good)
        if not fields:
            return good
        at = self.chance.randrange(len(fields))
        size = varint_size(fields[at], 0)
        fields[at] = change(fields[at][:size], fields[at][size:])
        return b"".join(fields)


def split(serialised: bytes) -> list[bytes]:
    """The fields of what a serialiser wrote, each with its tag."""
    fields, at = [], 0
    while at < len(serialised):
        began = at
        size = varint_size(serialised, at)
        wire_type = serialised[at] & 7
        at += size
        size = varint_size(serialised, at)
        if wire_type == 0:
            at += size
        elif wire_type == 2:
            at += size + read_varint(serialised, at)
        else:
            raise ValueError(f"wire type {wire_type} stands in no format")
        fields.append(serialised[began:at])
    return fields


def varint_size(serialised: bytes, at: int) -> int:
    size = 1
    while serialised[at + size - 1] & 0x80:
        size += 1
    return size


def read_varint(serialised: bytes, at: int) -> int:
    return sum((serialised[at + index] & 0x7F) << 7 * index for index in range(varint_size(serialised, at)))


def varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(written + bytes([value]))


def longer(written: bytes) -> bytes:
    return written[:-1] + bytes([written[-1] | 0x80, 0])


def knows_all(message) -> bool:
    """Whether every field in it, however deep, is one of the descriptor's."""
    if len(UnknownFieldSet(message)) > 0:
        return False
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if not all(knows_all(inner) for inner in (value if field.is_repeated else [value])):
                return False
    return True


def verdict(kind, serialised: bytes):
    message = kind()
    try:
        message.ParseFromString(serialised)
    except DecodeError:
        return "malformed", None
    if message.SerializeToString(deterministic=True) == serialised and knows_all(message):
        return "canonical", message
    return "other-spelling", None


def says(message, path: str) -> list[str]:
    """Each field that is set, by its name, in the order of the descriptor: numbers as they are, texts and bytes in hexadecimal."""
    lines = []
    for field, value in sorted(message.ListFields(), key=lambda pair: pair[0].number):
        name = f"{path}{field.name}"
        for one in value if field.is_repeated else [value]:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                lines.append(f"{name}=message")
                lines.extend(says(one, f"{name}."))
            elif field.type == FieldDescriptor.TYPE_STRING:
                lines.append(f"{name}={one.encode().hex()}")
            elif field.type == FieldDescriptor.TYPE_BYTES:
                lines.append(f"{name}={one.hex()}")
            else:
                lines.append(f"{name}={int(one)}")
    return lines


def golden_headers(path: Path) -> list[bytes]:
    """The bytes under `header (N bytes):` of the committed vectors."""
    found = re.findall(r"^header \((\d+) bytes\):\n((?:  [0-9a-f]+\n)+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    headers = [bytes.fromhex("".join(text.split())) for _, text in found]
    if not headers or any(len(header) != int(size) for header, (size, _) in zip(headers, found)):
        raise RuntimeError(f"{path} has no headers that can be read")
    return headers


def main(sources: str, golden: str, out: str) -> int:
    seed = int(os.environ.get("CONCORD_BATTERY_SEED", "1"))
    count = int(os.environ.get("CONCORD_BATTERY_COUNT", str(COUNT)))
    chance = random.Random(seed)
    maker, spoiler = Maker(chance), Spoiler(chance)
    known = golden_headers(Path(golden))
    told = {"malformed": 0, "other-spelling": 0, "canonical": 0}
    with tempfile.TemporaryDirectory() as folder, open(out, "w", encoding="ascii") as lines:
        header = Protocol(Path(sources), Path(folder)).exchange.Header

        def tell(serialised: bytes):
            if len(serialised) > SIZE_MAX_BYTES:
                return
            word, message = verdict(header, serialised)
            told[word] += 1
            fields = ";".join(says(message, "")) if message is not None else ""
            lines.write(f"{word} {serialised.hex()} {fields}\n")

        for serialised in known:
            tell(serialised)
        for index in range(count):
            made = maker.message(header()).SerializeToString(deterministic=True)
            good = chance.choice(known) if index % 3 == 0 else made
            tell(made)
            tell(spoiler.spoil(good))
    print(f"seed {seed}: {told}")
    # A file that says too little would compare nothing.
    return 0 if all(number > count / 20 for number in told.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
