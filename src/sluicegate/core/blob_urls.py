"""Which URLs of blobs a gateway may read and write: under prefixes that its operator names, and nothing else.

A client's URL is a request to us to connect somewhere (SSRF). So it is compared as text with what the operator wrote, in one
spelling only, and where its host leads is looked at before anything is sent (:func:`reachable`).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

URL_MOST: Final = 2_000
_SEGMENT: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
"""One piece of a path, RFC 3986 §3.3."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """``https://ACCOUNT.blob.core.windows.net/CONTAINER``: where blobs may be."""

    origin: str
    path: str


def parse_prefixes(text: str) -> tuple[Prefix, ...]:
    """The prefixes that a setting lists, separated by commas.

    Raises:
        ValueError: one of them is no prefix; the message says which and why.
    """
    return tuple(_prefix(one.strip()) for one in text.split(",") if one.strip())


def _prefix(text: str) -> Prefix:
    origin, path = _split(text.rstrip("/") + "/x")
    folder = path.rpartition("/")[0]
    if not folder.strip("/"):
        raise ValueError(f"{text!r} names no container; as https://ACCOUNT.blob.core.windows.net/CONTAINER")
    return Prefix(origin, folder)


def check_url(url: str, prefixes: tuple[Prefix, ...]) -> None:
    """Let a client's URL through if it is under one of the prefixes.

    Raises:
        ValueError: it is not, or is not plainly written; the message is for the client.
    """
    origin, path = _split(url)
    if not any(origin == prefix.origin and path.startswith(f"{prefix.path}/") for prefix in prefixes):
        raise ValueError("It is not in a container that this gateway may use.")


def _split(url: str) -> tuple[str, str]:
    """(scheme://host[:port], path) of a URL in the one spelling that is taken."""
    if len(url) > URL_MOST:
        raise ValueError("It is too long.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("It is no URL.") from None
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    plain = f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{parts.path}"
    # Whatever urlsplit tolerates or drops (tabs, capitals, user names, backslashes) makes the two differ.
    if plain != url or parts.scheme not in ("http", "https") or not host:
        raise ValueError(
            "It has to be written plainly: https://host/container/name, without a user, a query or a fragment."
        )
    for segment in parts.path[1:].split("/"):
        if (
            not _SEGMENT.fullmatch(segment)
            or re.sub("(?i)%2e", ".", segment) in (".", "..")
            or "%2f" in segment.lower()
        ):
            raise ValueError("Its path has a piece that is no name.")
    return plain[: len(plain) - len(parts.path)], parts.path


def reachable(address: str) -> bool:
    """Whether an IP address belongs to the public internet, in whatever form it is hidden.

    False for private, loopback, link-local (the cloud's metadata service), multicast, reserved and unspecified ones, also
    when an IPv6 address carries an IPv4 one (mapped, 6to4, Teredo, NAT64).
    """
    try:
        one = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if not one.is_global or one.is_multicast or one.is_reserved:
        return False
    if isinstance(one, ipaddress.IPv4Address):
        return True
    return all(
        carried is None or reachable(str(carried)) for carried in (one.ipv4_mapped, one.sixtofour, *(one.teredo or ()))
    )
