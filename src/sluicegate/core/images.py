"""Tokens of images, by the published tile and patch rules (F§8.4: OpenAI's vision guide, 2026).

Where texts of different dates disagree, the upper number is taken: a reservation too large costs little.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

USUAL_SIZE: Final = (1024, 1024)
"""Taken for an image that is given by URL, whose size nobody here can see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """Fit into 2048², shortest side to 768 (down only), then 512-pixel tiles."""

    base: int
    tile: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Patches of 32 × 32 pixels up to a budget, times a multiplier."""

    multiplier: float
    budget: int


_RULES: Final[dict[str, Tiles | Patches]] = {
    "gpt-4o-mini": Tiles(base=2_833, tile=5_667),
    "gpt-4o": Tiles(base=85, tile=170),
    "chatgpt-4o": Tiles(base=85, tile=170),
    "gpt-4.5": Tiles(base=85, tile=170),
    "gpt-4.1-mini": Patches(multiplier=1.62, budget=6_144),
    "gpt-4.1-nano": Patches(multiplier=2.46, budget=1_536),
    "gpt-4.1": Tiles(base=85, tile=170),
    "gpt-5-mini": Patches(multiplier=1.62, budget=1_536),
    "gpt-5-nano": Patches(multiplier=2.46, budget=1_536),
    "gpt-5.2": Patches(multiplier=1.2, budget=6_144),
    "gpt-5.4": Patches(multiplier=1.2, budget=6_144),
    "gpt-5.5": Patches(multiplier=1.2, budget=10_000),
    "gpt-5.6": Patches(multiplier=1.2, budget=2_500),
    "gpt-5": Tiles(base=70, tile=140),
    "o1": Tiles(base=75, tile=150),
    "o3": Tiles(base=75, tile=150),
    "o4-mini": Patches(multiplier=1.72, budget=1_536),
    "computer-use-preview": Tiles(base=65, tile=129),
}
_OTHERWISE: Final = Patches(multiplier=2.46, budget=1_536)


def tokens(model: str, width: int, height: int, detail: str) -> int:
    """Tokens of one image of ``width`` × ``height`` pixels for a model whose name begins with ``model``."""
    fitting = [name for name in _RULES if model.startswith(name)]
    rule = _RULES[max(fitting, key=len)] if fitting else _OTHERWISE
    if isinstance(rule, Tiles):
        return rule.base if detail == "low" else rule.base + rule.tile * _tile_count(width, height)
    return _ceil(_patch_count(width, height, rule.budget) * rule.multiplier)


def _tile_count(width: int, height: int) -> int:
    scale = min(1.0, 2048 / max(width, height))
    width_, height_ = width * scale, height * scale
    shrink = min(1.0, 768 / min(width_, height_))
    return _ceil(width_ * shrink / 512) * _ceil(height_ * shrink / 512)


def _patch_count(width: int, height: int, budget: int) -> int:
    return min(budget, _ceil(width / 32) * _ceil(height / 32))


def _ceil(value: float) -> int:
    # A hair of rounding error must not cost a whole tile.
    return max(1, -int(-(value - 1e-9) // 1))


def size_of(url: str) -> tuple[int, int] | None:
    """Width and height of a ``data:`` URL's image, read from its header; None for other URLs and unknown formats."""
    head, _, data = url.partition(",")
    if not head.startswith("data:") or ";base64" not in head:
        return None
    # A JPEG's size may stand behind its metadata; 256 KB of it are enough for any camera.
    part = data[:349_528]
    try:
        raw = base64.b64decode(part[: len(part) // 4 * 4])
    except (binascii.Error, ValueError):
        return None
    size = _png(raw) or _gif(raw) or _webp(raw) or _jpeg(raw)
    return size if size is not None and min(size) >= 1 else None


def _png(raw: bytes) -> tuple[int, int] | None:
    if raw[:8] != b"\x89PNG\r\n\x1a\n" or len(raw) < 24:
        return None
    return int.from_bytes(raw[16:20]), int.from_bytes(raw[20:24])


def _gif(raw: bytes) -> tuple[int, int] | None:
    if raw[:4] != b"GIF8" or len(raw) < 10:
        return None
    return int.from_bytes(raw[6:8], "little"), int.from_bytes(raw[8:10], "little")


def _webp(raw: bytes) -> tuple[int, int] | None:
    if raw[:4] != b"RIFF" or raw[8:12] != b"WEBP" or len(raw) < 30:
        return None
    kind = raw[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(raw[24:27], "little"), 1 + int.from_bytes(raw[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(raw[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(raw[26:28], "little") & 0x3FFF, int.from_bytes(raw[28:30], "little") & 0x3FFF


def _jpeg(raw: bytes) -> tuple[int, int] | None:
    if raw[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 < len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(raw[at + 7 : at + 9]), int.from_bytes(raw[at + 5 : at + 7])
        at += 2 + int.from_bytes(raw[at + 2 : at + 4])
    return None
