"""Validation of request heads."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.http_server.request_head import head_fault, is_ignored_upgrade, is_valid_host, origin_form

HOST = (b"host", b"runway")


@given(st.binary(max_size=60))
def test_host_of_arbitrary_bytes_has_no_delimiters(value: bytes) -> None:
    if is_valid_host(value):
        assert value
        assert not set(value) & set(b' \t\r\n/@\\"<>')


@given(st.ip_addresses(v=6), st.none() | st.integers(0, 65_535))
def test_ipv6_address_with_port_is_a_valid_host(address: object, port: int | None) -> None:
    text = f"[{address}]" if port is None else f"[{address}]:{port}"
    assert is_valid_host(text.encode())


def test_http_1_1_requires_one_host() -> None:
    assert head_fault(b"GET", "1.1", [HOST]) is None
    assert head_fault(b"GET", "1.0", []) is None
    assert "missing" in str(head_fault(b"GET", "1.1", []))
    assert "2 Host headers" in str(head_fault(b"GET", "1.0", [HOST, HOST]))


def test_http_1_0_ignores_upgrade() -> None:
    """A server must do so: https://www.rfc-editor.org/rfc/rfc9110#section-7.8"""
    upgrade = (b"upgrade", b"websocket")
    assert head_fault(b"GET", "1.0", [upgrade]) is None
    assert "Upgrade" in str(head_fault(b"GET", "1.1", [HOST, upgrade]))


def test_http_1_0_rejects_transfer_encoding() -> None:
    """The framing is faulty: https://www.rfc-editor.org/rfc/rfc9112#section-6.1"""
    chunked = (b"transfer-encoding", b"chunked")
    assert head_fault(b"POST", "1.1", [HOST, chunked]) is None
    assert "Transfer-Encoding" in str(head_fault(b"POST", "1.0", [chunked]))


@pytest.mark.parametrize(
    ("offers", "ignored"),
    [(b"h2c", True), (b"H2C ,tls/1.2", True), (b"h2c, websocket", False), (b"", False), (b"h2", False)],
)
def test_upgrade_offers_of_ordinary_clients_are_ignored(offers: bytes, ignored: bool) -> None:
    assert is_ignored_upgrade(offers) is ignored


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/a?b=c", b"/a?b=c"),
        (b"//a", b"//a"),
        (b"*", b"*"),
        (b"http://runway:80/a?b=c", b"/a?b=c"),
        (b"http://runway?b=c", b"/?b=c"),
        (b"http://runway", b"/"),
    ],
)
def test_origin_form_is_path_and_query(target: bytes, expected: bytes) -> None:
    assert origin_form(target) == expected


def test_origin_form_of_invalid_url_raises() -> None:
    with pytest.raises(httptools.HttpParserInvalidURLError):
        origin_form(b"http://[")
