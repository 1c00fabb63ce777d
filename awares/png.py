"""Removes the parts of a PNG file that hold no pixels but can make a decoder fail.

Pillow refuses a file whose colour profile or text is over 1 MB after decompression, although its
pixels are sound.
"""

import struct

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_REMOVED = frozenset((b"iCCP", b"tEXt", b"zTXt", b"iTXt"))


def without_texts(data: bytes) -> bytes:
    """Return a PNG file without its colour profile and texts. Return any other data as they are.

    A chunk that is cut off stays as it is.
    """
    if not data.startswith(_SIGNATURE):
        return data
    kept, start, position = [], 0, len(_SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + length + 12
        if kind in _REMOVED and end <= len(data):
            kept.append(data[start:position])
            start = end
        position = end
    return b"".join((*kept, data[start:])) if kept else data
