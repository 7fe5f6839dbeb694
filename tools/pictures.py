"""What the notebooks' outputs say about their pictures."""

import base64
from collections.abc import Iterator
from pathlib import Path

import nbformat


def pictures(notebook: Path) -> Iterator[tuple[bytes, str]]:
    """Every PNG among a notebook's outputs, with its alt text."""
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            if data := output.get("data", {}).get("image/png"):
                yield base64.b64decode(data), output.metadata.get("image/png", {}).get("alt", "")


def is_moving(png: bytes) -> bool:
    """Whether a PNG is an animation: its control chunk `acTL` stands before the picture's data `IDAT`."""
    position = 8  # after the signature
    while position + 8 <= len(png):
        kind = png[position + 4 : position + 8]
        if kind in (b"acTL", b"IDAT"):
            return kind == b"acTL"
        position += 12 + int.from_bytes(png[position : position + 4], "big")
    return False
