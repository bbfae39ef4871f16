"""Which blobs a gateway may use: SSRF ends here."""

import pytest

from sluicegate.core.blob_urls import check_url, parse_prefixes, reachable

PREFIXES = parse_prefixes("https://store.blob.core.windows.net/batches, http://127.0.0.1:10000/account/in")


@pytest.mark.parametrize(
    "url",
    [
        "https://store.blob.core.windows.net/batches/in.jsonl",
        "https://store.blob.core.windows.net/batches/a%20b/%C3%A4.jsonl",
        "http://127.0.0.1:10000/account/in/x",
    ],
)
def test_blobs_under_a_prefix_may_be_used(url: str) -> None:
    """As the operator wrote it."""
    check_url(url, PREFIXES)


@pytest.mark.parametrize(
    "url",
    [
        "https://store.blob.core.windows.net/other/in.jsonl", "https://store.blob.core.windows.net/batches",
        "https://store.blob.core.windows.net/batches2/x", "https://store.blob.core.windows.net/batches/",
        "http://store.blob.core.windows.net/batches/x", "https://store.blob.core.windows.net:8443/batches/x",
        "https://STORE.blob.core.windows.net/batches/x", "https://evil.net/batches/x",
        "https://store.blob.core.windows.net.evil.net/batches/x", "https://store.blob.core.windows.net@evil.net/batches/x",
        "https://user:pw@store.blob.core.windows.net/batches/x", "https://store.blob.core.windows.net/batches/../other/x",
        "https://store.blob.core.windows.net/batches/%2e%2E/other/x", "https://store.blob.core.windows.net/batches/a%2fb",
        "https://store.blob.core.windows.net/batches/x?sig=1", "https://store.blob.core.windows.net/batches/x#y",
        "https://store.blob.core.windows.net/batches//x", "https://store.blob.core.windows.net\\@evil.net/batches/x",
        "https://store.blob.core.windows.net/batches/\tx", " https://store.blob.core.windows.net/batches/x",
        "https://store.blob.core.windows.net/batches/x\r\nHost: evil", "file:///batches/x",
        "//store.blob.core.windows.net/batches/x",
        "gopher://store.blob.core.windows.net/batches/x", "https://[::1]/batches/x", "http://2130706433/account/in/x",
        "http://127.0.0.1:10001/account/in/x", "https://store.blob.core.windows.net/batches/" + "x" * 3_000, "", "https://",
    ],
)  # fmt: skip
def test_all_others_may_not(url: str) -> None:
    """Other hosts, ports and containers, and every other way to write what is allowed."""
    with pytest.raises(ValueError, match=r"^Its? "):
        check_url(url, PREFIXES)


@pytest.mark.parametrize("text", ["https://store.blob.core.windows.net", "store/batches", "https://a/b?c", "ftp://a/b"])
def test_a_prefix_names_a_container(text: str) -> None:
    """A whole account, or anything that is no URL, is refused when the gateway starts."""
    with pytest.raises(ValueError, match=r"It |names no container"):
        parse_prefixes(text)


@pytest.mark.parametrize("address", ["20.60.1.1", "2603:1030::1"])
def test_public_addresses_are_reachable(address: str) -> None:
    """IPv4 and IPv6."""
    assert reachable(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::", "::127.0.0.1",
        "2001:0:a9fe:a9fe::1", "not an address", "",
    ],
)  # fmt: skip
def test_addresses_of_ones_own_network_are_not(address: str) -> None:
    """Loopback, private, link-local, metadata services, and their disguises."""
    assert not reachable(address)
