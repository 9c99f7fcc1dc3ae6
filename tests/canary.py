"""Every layer of a file's bytes, for tests that look for what must not be there."""

import base64
import binascii
import contextlib
import gzip
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path


def layers(raw: bytes) -> Iterator[bytes]:
    """Yield the bytes as they are, and unpacked: gzip, text of PNG chunks, data URIs of pages."""
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield from layers(gzip.decompress(raw))
    if raw[:8] == b"\x89PNG\r\n\x1a\n":
        place = 8
        while place + 8 <= len(raw):
            (length,) = struct.unpack(">I", raw[place : place + 4])
            kind, body = raw[place + 4 : place + 8], raw[place + 8 : place + 8 + length]
            if kind in (b"zTXt", b"iTXt"):
                for at in range(len(body)):
                    if body[at : at + 1] == b"\x78":
                        try:
                            yield zlib.decompress(body[at:])
                        except zlib.error:
                            continue
            place += 12 + length
    for found in re.findall(rb"base64,([A-Za-z0-9+/=\s]+)", raw):
        try:
            yield from layers(base64.b64decode(found))
        except binascii.Error:
            continue


def holding(folder: Path, words: tuple[bytes, ...]) -> list[str]:
    """Return the files below a folder that hold one of the words, in the name or in any layer."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        names = str(path.relative_to(folder)).encode()
        if re.fullmatch(rb"[A-Za-z0-9+/=_-]{8,}", path.name.encode()):  # the engine names records in base64
            with contextlib.suppress(binascii.Error):
                names += base64.b64decode(path.name + "==")
        if any(w in layer for w in words for layer in (names, *layers(path.read_bytes()))):
            found.append(str(path.relative_to(folder)))
    return found
