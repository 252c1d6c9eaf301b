"""The guard of what goes out: whatever clients, names or redirects say, only public addresses are met."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import httpcore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from origin import NO_OPENSSL, certificate, dripping, endless, gives, origin, raw, status

from app.outbound import INTERNAL, METADATA, SPECIAL, Outbound, Rules, Target, is_public, parse_url
from app.problems import Problem

PUBLIC, OTHER_PUBLIC = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# -- stand-ins ----------------------------------------------------------------------------------------------


class Stream(httpcore.AsyncNetworkStream):
    """A connection that says what it is made to, and keeps what it hears."""

    def __init__(self, answer: bytes) -> None:
        self.left = [answer, b""]
        self.heard = b""

    async def read(self, *_: Any, **__: Any) -> bytes:
        return self.left.pop(0)

    async def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        self.heard += buffer

    async def aclose(self) -> None:
        pass

    async def start_tls(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        return self

    def get_extra_info(self, _info: str) -> Any:
        return None


class Network(httpcore.AsyncNetworkBackend):
    """Connects nowhere, and says where it was to. Each connection takes the next answer."""

    def __init__(self, *answers: bytes, dead: Iterable[str] = ()) -> None:
        self.answers = list(answers) or [OK]
        self.dead = set(dead)
        self.met: list[tuple[str, int]] = []
        self.streams: list[Stream] = []

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.met.append((host, port))
        if host in self.dead:
            raise httpcore.ConnectError
        self.streams.append(Stream(self.answers.pop(0)))
        return self.streams[-1]


class Names:
    """A name server. A list of lists is answered in turn."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {name.replace("_", "."): answer for name, answer in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        answer = self.answers.get(host, socket.gaierror(socket.EAI_NONAME, "unknown"))
        if isinstance(answer, Exception):
            raise answer
        return answer.pop(0) if isinstance(answer[0], list) else answer  # type: ignore[no-any-return]


NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts no certificate: a stand-in for a network shows none."""


def out(rules: Rules, **given: Any) -> Outbound:
    return Outbound(rules, ssl_context=NOBODY, **given)


def get(outbound: Outbound, url: str, **how: Any) -> tuple[int, bytes, Target]:
    """Status, body and where it came from."""

    async def scenario() -> tuple[int, bytes, Target]:
        async with outbound.open("GET", parse_url(url), **how) as answer:
            return answer.status, b"".join([chunk async for chunk in answer.chunks]), answer.target

    try:
        return asyncio.run(scenario())
    finally:
        outbound.close()


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    """Code and detail."""
    with pytest.raises(Problem) as problem:
        call()
    return problem.value.code, problem.value.detail


# -- addresses ----------------------------------------------------------------------------------------------

FORBIDDEN = re.findall(
    r"\S+",
    """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.8.8.8
169.254.0.1 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1
192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1
255.255.255.255 168.63.129.16
:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:8.8.8.8 64:ff9b::a00:1 64:ff9b::808:808
64:ff9b:1::1 100::1 100:0:0:1::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:20::1
2001:db8::1 2002:7f00:1:: 2002:808:808::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fd20:ce::254 fe80::1 febf::1
fec0::1 ff02::1 ff0e::1 2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:10.0.0.1 4000::1 e000::1
""",
)


@pytest.mark.parametrize("address", FORBIDDEN)
def test_what_is_not_for_everybody_is_not_met(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", [PUBLIC, OTHER_PUBLIC, "1.1.1.1", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2a00::1"]
)
def test_what_is_for_everybody_is(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses())
def test_the_standard_library_finds_nothing_special_about_what_passes(
    address: IPv4Address | IPv6Address,
) -> None:
    if is_public(address):
        assert address.is_global
        special = ("private", "loopback", "link_local", "multicast", "reserved", "unspecified")
        assert not any(getattr(address, f"is_{kind}") for kind in special)


@given(st.ip_addresses(v=4))
def test_little_else_is_held_back(address: IPv4Address) -> None:
    ours = ip_network("192.88.99.0/24"), ip_network("192.0.0.0/24")  # there ipaddress lets more pass
    held_back = address.is_multicast or address in METADATA or any(address in network for network in ours)
    if address.is_global and not held_back:
        assert is_public(address)


@given(st.sampled_from(SPECIAL), st.data())
def test_no_address_of_a_special_network_passes(network: Any, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, network.num_addresses - 1))
    assert not is_public(network[offset])


EMBEDDINGS: list[Callable[[int], int]] = [
    lambda v4: v4,  # compatible
    lambda v4: 0xFFFF << 32 | v4,  # mapped
    lambda v4: 0xFFFF << 48 | v4,  # translated
    lambda v4: 0x64FF9B << 96 | v4,  # NAT64
    lambda v4: 0x64FF9B0001 << 80 | v4,  # NAT64, local
    lambda v4: 0x2002 << 112 | v4 << 80,  # 6to4
    lambda v4: 0x20010000 << 96 | v4 ^ 0xFFFFFFFF,  # Teredo
    lambda v4: 0x2A00 << 112 | 0x5EFE << 32 | v4,  # ISATAP
]


@given(st.ip_addresses(v=4), st.sampled_from(EMBEDDINGS))
def test_no_ipv4_passes_inside_ipv6(address: IPv4Address, embed: Callable[[int], int]) -> None:
    assert not is_public(IPv6Address(embed(int(address))))


def test_metadata_are_met_under_no_rule() -> None:
    everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
    rules = Rules(internal_hosts=frozenset({"host"}), internal_networks=everything)
    assert not any(rules.allows("host", address) for address in METADATA)
    assert rules.allows("host", ip_address("10.0.0.1"))


def test_an_internal_host_is_met_at_internal_addresses_only() -> None:
    rules = Rules(internal_hosts=frozenset({"store.internal"}))
    for network in INTERNAL:
        assert rules.allows("store.internal", network[1] if network.num_addresses > 1 else network[0])
        assert not rules.allows("other.internal", network[0])
    for address in ("169.254.0.1", "224.0.0.1", "0.0.0.0", "fe80::1", "::ffff:10.0.0.1"):  # noqa: S104
        assert not rules.allows("store.internal", ip_address(address))


# -- URLs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("https://example.org", "https://example.org/"),
        ("HTTPS://Example.ORG:443/a/b.mp4#part", "https://example.org/a/b.mp4"),
        ("https://example.org:8443/%2e%2e/a?", "https://example.org:8443/%2e%2e/a"),
        ("http://example.org:80/ä b/ü.mp4?é=1", "http://example.org/%C3%A4%20b/%C3%BC.mp4?%C3%A9=1"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://faß.example/", "https://xn--fa-hia.example/"),  # IDNA 2008, as browsers do
        ("https://93.184.215.14/a", "https://93.184.215.14/a"),
        ("https://[2606:2800:21F::0001]:8443/", "https://[2606:2800:21f::1]:8443/"),
        (
            "https://a_b.example.org/x?X-Sig=a%2Fb+c&e=1;d={}",
            "https://a_b.example.org/x?X-Sig=a%2Fb+c&e=1;d={}",
        ),
        # Full-width digits and dots are the same address as plain ones: read as one, and then checked as one.
        ("https://１２７.０.０.１/", "https://127.0.0.1/"),
        ("https://127。0。0。1/", "https://127.0.0.1/"),
    ],
)
def test_urls_are_read(url: str, read: str) -> None:
    assert parse_url(url).url == read
    assert parse_url(parse_url(url).url) == parse_url(url)


HOSTILE = [
    *re.findall(
        r"\S+",
        """
b example.org //example.org/a file:///etc/passwd ftp://example.org/ gopher://example.org/ data:video/mp4,x
javascript:alert(1) unix:///run/docker.sock https:// https:/// https:///etc/passwd https://?x https://#x
https:example.org
https://user@example.org/ https://user:secret@example.org/ https://example.org@127.0.0.1/ https://@example.org/
https://example.org\\@127.0.0.1/ https:\\\\127.0.0.1\\ https://example.org%00.evil.example/
https://exa%6dple.org/ https://2130706433/ https://0x7f000001/ https://017700000001/ https://0x7f.1/ https://0177.0.0.1/
https://127.1/ https://127.0.1/ https://127.0.0.1./ https://127.0.0.01/ https://127.0.0.256/ https://1.2.3.4.5/
https://1.2.3.0x4/ https://example.org./ https://.example.org/ https://example..org/ https://-a.example/
https://a.example-/ https://exam!ple.org/ https://*.example.org/ https://[::1/ https://::1/ https://[127.0.0.1]/
https://[v1.fe]/ https://[fe80::1%25eth0]/ https://[fe80::1%eth0]/ https://[example.org]/ https://[::1]evil.example/
https://evil.example[::1]/ https://example.org:0/ https://example.org:0x50/ https://example.org:-1/
https://example.org:65536/ https://example.org:٤٤٣/
https://example.org:443:80/ https://xn--.example/\x00 https://\u2100.example/ https://\u202eexample.org/
""",
    ),
    "",
    " https://example.org/",
    "https://example.org/ ",
    "https://exa mple.org/",
    "https://example.org/\r\nHost: evil",
    "https://exa\tmple.org/",
    "ht\ntps://example.org/",
    "https://example.org/\x7f",
    "https://example.org/\ud800",
    "https://" + "a" * 64 + ".example/",
    "https://" + "a." * 130 + "example/",
    "https://example.org/" + "a" * 8192,
]


@pytest.mark.parametrize("url", HOSTILE, ids=ascii)
def test_odd_urls_are_refused(url: str) -> None:
    code, detail = refused(lambda: parse_url(url))
    assert code == "url_invalid"
    assert "secret" not in detail


@settings(max_examples=60)
@given(st.text(max_size=60), st.sampled_from(["", "https://", "http://", "https://example.org"]))
def test_any_text_is_read_or_refused(text: str, before: str) -> None:
    try:
        target = parse_url(before + text)
    except Problem:
        return
    sent = target.path + (target.query or "")
    assert sent.isascii()
    assert sent.isprintable()
    assert " " not in sent
    assert parse_url(target.url) == target


def test_a_query_is_not_shown() -> None:
    target = parse_url("https://example.org/a.mp4?X-Amz-Signature=secret")
    assert "secret" not in f"{target} {target!r}"
    assert target.url.endswith("=secret")


# -- what is said before a look-up --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "rules"),
    [
        ("http://example.org/", Rules()),
        ("https://example.org:22/", Rules()),
        ("https://example.org:80/", Rules()),
        ("https://example.org/", Rules(hosts=frozenset({"example.com", "*.example.org"}))),
        ("https://evil-example.org/", Rules(hosts=frozenset({"*.example.org", "example.org"}))),
        ("https://localhost/", Rules()),
        ("https://metadata/", Rules()),
        ("https://127.0.0.1/", Rules()),
        ("https://[::ffff:127.0.0.1]/", Rules()),
    ],
)
def test_refused_without_a_look_up(url: str, rules: Rules) -> None:
    names, network = Names(), Network()
    outbound = out(rules, look_up=names, network=network)
    code, _ = refused(lambda: asyncio.run(outbound.check(parse_url(url))))
    assert code == "url_refused"
    assert refused(lambda: get(outbound, url))[0] == "url_refused"
    assert (names.asked, network.met) == ([], [])


def test_hosts_on_the_list_are_met() -> None:
    rules = Rules(hosts=frozenset({"example.com", "*.example.org"}))
    names = Names(a_b_example_org=[PUBLIC], example_com=[PUBLIC])
    for url in ("https://a.b.example.org/", "https://example.com/"):
        assert get(out(rules, look_up=names, network=Network()), url)[1] == b"ok"


# -- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses",
    [[bad] for bad in ("127.0.0.1", "10.0.0.1", "::1", "fe80::1%eth0", "::ffff:8.8.8.8", "169.254.169.254")]
    + [[PUBLIC, "10.0.0.1"], ["10.0.0.1", PUBLIC], [PUBLIC, OTHER_PUBLIC, "fd00::1"], []],
)
def test_one_bad_address_is_one_too_many(addresses: list[str]) -> None:
    network = Network()
    outbound = out(Rules(), look_up=lambda _host, _port: addresses, network=network)
    said = refused(lambda: get(outbound, "https://example.org/"))
    unknown = out(Rules(), look_up=Names(), network=network)
    assert said == refused(
        lambda: get(unknown, "https://example.org/")
    )  # which of the two it is, is not told
    assert said[0] == "url_refused"
    assert network.met == []


def test_the_address_that_was_checked_is_met_whatever_the_name_says_next() -> None:
    names, network = Names(example_org=[[PUBLIC], ["127.0.0.1"]]), Network()
    assert get(out(Rules(), look_up=names, network=network), "https://example.org/a")[:2] == (200, b"ok")
    assert network.met == [(PUBLIC, 443)]
    assert names.asked == ["example.org"]


def test_a_name_that_has_changed_since_it_was_checked_is_refused() -> None:
    names, network = Names(example_org=[[PUBLIC], ["127.0.0.1"]]), Network()
    outbound = out(Rules(), look_up=names, network=network)
    asyncio.run(outbound.check(parse_url("https://example.org/")))
    assert refused(lambda: get(outbound, "https://example.org/"))[0] == "url_refused"
    assert network.met == []


def test_an_address_that_is_not_reached_leaves_the_next() -> None:
    names, network = Names(example_org=[OTHER_PUBLIC, PUBLIC]), Network(dead=[OTHER_PUBLIC])
    assert get(out(Rules(), look_up=names, network=network), "https://example.org/")[0] == 200
    assert network.met == [(OTHER_PUBLIC, 443), (PUBLIC, 443)]
    network = Network(dead=[PUBLIC, OTHER_PUBLIC])
    said = refused(lambda: get(out(Rules(), look_up=names, network=network), "https://example.org/"))
    assert said == ("fetch_failed", "The host example.org could not be connected to.")


def test_a_name_server_that_is_away_may_be_back() -> None:
    away = Names(example_org=socket.gaierror(socket.EAI_AGAIN, "later"))
    outbound = out(Rules(), look_up=away, network=Network())
    assert refused(lambda: get(outbound, "https://example.org/"))[0] == "fetch_failed"


def test_a_look_up_has_its_time() -> None:
    import threading

    gate = threading.Event()

    def hangs(host: str, port: int) -> list[str]:
        gate.wait(10)
        return [PUBLIC]

    outbound = out(Rules(connect_s=0.05), look_up=hangs, network=Network())
    said = refused(lambda: get(outbound, "https://example.org/"))
    gate.set()
    assert said == ("fetch_failed", "The host example.org can't be looked up at present.")


# -- redirects ----------------------------------------------------------------------------------------------


def redirect(location: str, code: int = 302) -> bytes:
    return f"HTTP/1.1 {code} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("https://127.0.0.1/", "url_refused"),
        ("//127.0.0.1/", "url_refused"),
        ("https://[::1]/", "url_refused"),
        ("https://169.254.169.254/latest/meta-data/", "url_refused"),
        ("https://inside.example/", "url_refused"),
        ("https://unknown.example/", "url_refused"),
        ("https://example.org:22/", "url_refused"),
        ("http://example.org/", "not_fetchable"),
        ("http://169.254.169.254/", "not_fetchable"),
        ("file:///etc/passwd", "not_fetchable"),
        ("https://user:secret@example.org/", "not_fetchable"),
        ("https://2130706433/", "not_fetchable"),
        ("https://exa mple.org/", "not_fetchable"),
    ],
)
def test_a_redirect_is_checked_like_the_first_address(location: str, code: str) -> None:
    names, network = Names(example_org=[PUBLIC], inside_example=["10.0.0.1"]), Network(redirect(location), OK)
    outbound = out(Rules(), look_up=names, network=network)
    found, detail = refused(lambda: get(outbound, "https://example.org/", redirects=5))
    assert found == code
    assert "secret" not in detail
    assert network.met == [(PUBLIC, 443)]


def test_redirects_are_followed_so_far_and_no_further() -> None:
    names = Names(example_org=[PUBLIC], cdn_example=[OTHER_PUBLIC])
    hops = [redirect("/b?x=1", 301), redirect("https://cdn.example/c", 307), OK]
    network = Network(*hops)
    outbound = out(Rules(), look_up=names, network=network)
    assert get(outbound, "https://example.org/a", redirects=2)[1:] == (
        b"ok",
        parse_url("https://cdn.example/c"),
    )
    assert network.met == [(PUBLIC, 443), (PUBLIC, 443), (OTHER_PUBLIC, 443)]
    assert network.streams[1].heard.startswith(b"GET /b?x=1 HTTP/1.1\r\nHost: example.org\r\n")
    outbound = out(Rules(), look_up=names, network=Network(*hops))
    said = refused(lambda: get(outbound, "https://example.org/a", redirects=1))
    assert said[0] == "not_fetchable"
    assert said[1].endswith("redirected too often.")


def test_a_redirect_without_an_address_leads_nowhere() -> None:
    nowhere = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"
    outbound = out(Rules(), look_up=Names(example_org=[PUBLIC]), network=Network(nowhere))
    assert refused(lambda: get(outbound, "https://example.org/", redirects=5))[0] == "not_fetchable"


# -- what is sent -------------------------------------------------------------------------------------------


def test_nothing_of_ours_goes_along(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://user:secret@127.0.0.1:3128")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine example.org login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    network = Network(OK[:-2].replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=secret\r\n\r\n") + b"ok", OK)
    outbound = out(Rules(), look_up=Names(example_org=[PUBLIC]), network=network)
    for _ in range(2):
        get(outbound, "https://example.org/a?b=1")
        outbound = out(Rules(), look_up=Names(example_org=[PUBLIC]), network=network)
    assert network.met == [(PUBLIC, 443)] * 2
    for stream in network.streams:
        head = stream.heard.decode()
        assert head.startswith("GET /a?b=1 HTTP/1.1\r\nHost: example.org\r\n")
        names = {line.partition(":")[0].lower() for line in head.split("\r\n")[1:] if line}
        assert names == {"host", "user-agent", "accept-encoding", "connection"}
        assert "accept-encoding: identity" in head.lower()


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (f"https://[{OTHER_PUBLIC}]:8443/", f"[{OTHER_PUBLIC}]:8443"),
        (f"https://{PUBLIC}/", PUBLIC),
        ("http://example.org:8443/", "example.org:8443"),
    ],
)
def test_the_host_is_named_as_it_must_be(url: str, host: str) -> None:
    network = Network()
    rules = Rules(http=True, ports=frozenset({443, 8443}))
    get(out(rules, look_up=Names(example_org=[PUBLIC]), network=network), url)
    assert f"\r\nHost: {host}\r\n" in network.streams[0].heard.decode()


# -- over real sockets --------------------------------------------------------------------------------------


def here(port: int, **rules: Any) -> Outbound:
    """Out to a server on loopback, as an operator may allow it."""
    allowed: dict[str, Any] = {
        "http": True,
        "ports": frozenset({port}),
        "internal_networks": (ip_network("127.0.0.1"),),
    }
    return Outbound(Rules(**allowed | rules))


def test_a_server_is_met_where_the_operator_allows_it() -> None:
    with origin({"/a": gives(b"0123456789")}) as server:
        assert get(here(server.port), server.url("/a?b=1"))[:2] == (200, b"0123456789")
        assert get(here(server.port), server.url("/b"))[:2] == (404, b"")
        assert (
            refused(lambda: get(here(server.port, internal_networks=()), server.url("/a")))[0]
            == "url_refused"
        )
        assert [path for _, path, _ in server.asked] == ["/a?b=1", "/b"]


def test_a_message_is_sent_and_its_redirect_is_an_answer() -> None:
    """As a webhook is: checked when it is registered and at each time, and sent to nowhere else."""

    async def scenario(url: str, port: int) -> int:
        outbound = here(port)
        await outbound.check(parse_url(url))
        sent = [("Content-Type", "application/json")]
        async with outbound.open("POST", parse_url(url), headers=sent, content=b"{}") as answer:
            return answer.status

    with origin({"/hook": status(204), "/moved": status(302, Location="/hook")}) as server:
        assert asyncio.run(scenario(server.url("/hook"), server.port)) == 204
        assert asyncio.run(scenario(server.url("/moved"), server.port)) == 302
    method, path, headers = server.asked[0]
    assert (method, path, headers["content-length"]) == ("POST", "/hook", "2")
    assert headers["content-type"] == "application/json"
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("act", "rules", "said"),
    [
        (dripping(b"x" * 50, pause_s=0.1), {"idle_s": 0.05}, "did not answer in time"),
        (dripping(b"x" * 50, pause_s=0.02), {"timeout_s": 0.2}, "took longer than 0.2 s"),
        (endless, {"timeout_s": 0.2}, "took longer than 0.2 s"),
        (gives(b"short", Content_Length="100"), {}, "broke off"),
        (gives(b"x", Content_Length="-1"), {}, "broke off"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), {}, "broke off"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), {}, "broke off"),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), {}, "broke off"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), {}, "broke off"),
        (raw(b""), {}, "broke off"),
    ],
)
def test_servers_that_misbehave(act: Any, rules: dict[str, Any], said: str) -> None:
    with origin({"/a": act}) as server:
        code, detail = refused(lambda: get(here(server.port, **rules), server.url("/a")))
    assert (code, said in detail) == ("fetch_failed", True), detail


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    said = refused(lambda: get(here(port), f"http://127.0.0.1:{port}/"))
    assert said == ("fetch_failed", "The host 127.0.0.1 could not be connected to.")


def test_a_time_out_of_the_caller_s_own_is_the_caller_s() -> None:
    async def scenario(url: str, port: int) -> None:
        async with here(port).open("GET", parse_url(url)):
            raise TimeoutError

    with origin({"/a": gives(b"")}) as server, pytest.raises(TimeoutError):
        asyncio.run(scenario(server.url("/a"), server.port))


@pytest.mark.skipif(bool(NO_OPENSSL), reason=NO_OPENSSL)
def test_certificates_are_verified_against_the_name(tmp_path: Path) -> None:
    for_server, for_client = certificate(tmp_path, "media.example")

    def over_tls(port: int, trusts: ssl.SSLContext | None) -> Outbound:
        hosts = frozenset({"media.example", "other.example"})
        rules = Rules(ports=frozenset({port}), internal_hosts=hosts)
        return Outbound(rules, look_up=lambda _host, _port: ["127.0.0.1"], ssl_context=trusts)

    with origin({"/a": gives(b"0123")}, tls=for_server) as server:
        url = f"https://media.example:{server.port}/a"
        assert get(over_tls(server.port, for_client), url)[1] == b"0123"
        other = url.replace("media", "other")
        for outbound, address in (
            (over_tls(server.port, for_client), other),
            (over_tls(server.port, None), url),
        ):
            code, detail = refused(lambda outbound=outbound, address=address: get(outbound, address))  # type: ignore[misc]
            assert (code, "certificate" in detail) == ("not_fetchable", True)
        assert len(server.asked) == 1
    with origin({"/a": gives(b"0123")}) as server:  # no TLS at all
        url = f"https://media.example:{server.port}/a"
        assert refused(lambda: get(over_tls(server.port, for_client), url))[0] == "fetch_failed"
