"""Going out on a client's word, only to where anybody may go: the guard against server-side request forgery.

A name is looked up once for each connection, all its addresses are checked, and one of those is connected to:
what the name says a moment later (DNS rebinding) plays no part. Each redirect takes the same way. TLS is
verified against the name. Nothing of ours goes along: no cookies, no netrc, no proxy of the environment.

A host that is unknown and one that is not public are refused in the same words and at once: who may submit
addresses learns nothing about the network that this machine is in.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from string import printable
from urllib.parse import quote, urljoin, urlsplit

import httpcore
import idna

from app.problems import Problem
from specsem import __version__

__all__ = ["Answer", "Outbound", "Rules", "Target", "is_public", "parse_host", "parse_url"]

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
LookUp = Callable[[str, int], Sequence[str]]
"""From host and port to its IP addresses; blocking, raises ``OSError``."""

MAX_URL_CHARACTERS = 8192
LOOK_UPS = 4
DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEPT_AS_SENT = "".join(char for char in printable if not char.isspace())
"""A signature may cover how an address is written: only what HTTP can't carry is written otherwise."""
LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
NAME = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(?:\.{LABEL})*")
AUTHORITY = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:]+))(?::(?P<port>[0-9]{0,5}))?")
LOOKS_LIKE_A_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")


# -- addresses ----------------------------------------------------------------------------------------------


def _networks(*texts: str) -> tuple[IPNetwork, ...]:
    return tuple(ip_network(text) for text in texts)


METADATA = frozenset(
    map(
        ip_address,
        # What clouds tell their machines, credentials included: AWS and most others, AWS containers, Oracle,
        # Alibaba, Azure (an address that looks public), AWS and Google by IPv6.
        (
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "192.0.0.192",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
        ),
    )
)
INTERNAL = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"
)
"""Where an operator's own hosts are: private, shared (CGNAT) and loopback."""
# IANA's registries of special-purpose addresses, without the few entries that are services for everybody. Our
# own table, because that of ``ipaddress`` changes with Python's version and takes tunnels for global.
SPECIAL = _networks(
    *map(str, INTERNAL),
    "0.0.0.0/8",  # this network; Linux takes it for this machine
    "169.254.0.0/16",  # link-local
    "192.0.0.0/24",  # protocol assignments
    "192.0.2.0/24",  # documentation
    "192.88.99.0/24",  # relays of 6to4
    "198.18.0.0/15",  # benchmarking
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
    "2001:db8::/32",  # documentation
    "2002::/16",  # 6to4: any IPv4 address inside
    "3fff::/20",  # documentation
)
GLOBAL_UNICAST = ip_network("2000::/3")
"""All of IPv6 that is routed for everybody. IPv4 inside IPv6 (mapped, compatible, NAT64), link-local,
site-local and multicast lie outside."""
ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""Bits 32 to 63 of a host part that tunnels to the IPv4 address in the bits below (RFC 5214)."""


def is_public(address: IPAddress) -> bool:
    """Whether the address is routed for everybody and leads nowhere else."""
    if isinstance(address, IPv6Address):
        tunnels = int(address) >> 32 & 0xFFFFFFFF in ISATAP
        if tunnels or address not in GLOBAL_UNICAST:
            return False
    return address not in METADATA and not any(address in network for network in SPECIAL)


# -- URLs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads. Shown without its query: a presigned link carries its credentials there."""

    scheme: str
    host: str
    """An IP address in its usual spelling, or a name in lower-case ASCII."""
    port: int
    path: str
    query: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self._authority}{self.path}"

    @property
    def url(self) -> str:
        """All of it. A secret."""
        return str(self) if self.query is None else f"{self}?{self.query}"

    @property
    def _authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def _request_url(self) -> httpcore.URL:
        target = self.path if self.query is None else f"{self.path}?{self.query}"
        return httpcore.URL(scheme=self.scheme, host=self.host, port=self.port, target=target)


def parse_url(url: str) -> Target:
    """Read a URL, strictly: two readers that understand one differently are how guards are passed.

    Raises:
        Problem: ``url_invalid`` (422).
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise _invalid(f"It is longer than {MAX_URL_CHARACTERS} characters.")
    if url != url.strip() or "\\" in url or any(ord(char) < 0x20 or ord(char) == 0x7F for char in url):
        raise _invalid("It has a backslash, a control character, or space around it.")
    try:
        parts = urlsplit(url)
        path, query = quote(parts.path, KEPT_AS_SENT), quote(parts.query, KEPT_AS_SENT)
    except ValueError:
        raise _invalid("It does not follow the grammar of URLs.") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise _invalid("Only addresses that begin with https:// or http:// are understood.")
    if "@" in parts.netloc:
        raise _invalid("Names and passwords in it are not accepted.")
    host, port = _parse_authority(parts.netloc)
    return Target(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], path or "/", query or None)


def _parse_authority(authority: str) -> tuple[str, int | None]:
    """Host and port. Read here and not by ``urlsplit``, which takes ``[::1]example.org`` for ``::1``."""
    found = AUTHORITY.fullmatch(authority)
    if found is None:
        raise _invalid("What it has for a host and a port is neither.")
    try:
        host = str(IPv6Address(found["ipv6"])) if found["ipv6"] else parse_host(found["host"])
    except ValueError:
        raise _invalid("Its host is neither a name nor an IP address in the usual spelling.") from None
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port < 2**16:
        raise _invalid("Its port is none.")
    return host, port


def parse_host(host: str) -> str:
    """A host as ``Target`` has it. Odd spellings of IP addresses (0x7f.1, 017700000001), a trailing dot and
    zones (fe80::1%eth0) are no hosts here.

    Raises:
        ValueError: it is none.
    """
    if ":" in host:
        if "%" in host:
            raise ValueError("a zone")
        return str(IPv6Address(host))
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode("ascii")  # full-width digits become digits here
    host = host.lower()
    if LOOKS_LIKE_A_NUMBER.fullmatch(host.rpartition(".")[2]):
        return str(IPv4Address(host))
    if not NAME.fullmatch(host):
        raise ValueError("no name")
    return host


def _invalid(why: str) -> Problem:
    return Problem("url_invalid", f"This URL can't be used. {why}")


# -- rules --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Where one may go, and for how long. The metadata services of clouds are never among it."""

    http: bool = False
    ports: frozenset[int] = frozenset({443})
    hosts: frozenset[str] = frozenset()
    """Only these; ``*.example.org`` are all names below it. Empty: any."""
    internal_hosts: frozenset[str] = frozenset()
    """These may be at private, shared or loopback addresses."""
    internal_networks: tuple[IPNetwork, ...] = ()
    """Any host may be at one of these addresses."""
    connect_s: float = 10.0
    idle_s: float = 30.0
    timeout_s: float = 1800.0

    def check(self, target: Target) -> None:
        """What can be said of a target without a look-up.

        Raises:
            Problem: ``url_refused`` (403).
        """
        if target.scheme == "http" and not self.http:
            raise Problem("url_refused", "Only https addresses are allowed here.")
        if target.port not in self.ports:
            allowed = ", ".join(map(str, sorted(self.ports)))
            raise Problem("url_refused", f"Only these ports are allowed here: {allowed}.")
        if not self._is_listed(target.host):
            raise Problem("url_refused", f"The host {target.host} is not among those that are allowed here.")

    def allows(self, host: str, address: IPAddress) -> bool:
        """Whether this address of the host may be connected to."""
        if address in METADATA:
            return False
        if is_public(address) or any(address in network for network in self.internal_networks):
            return True
        return host in self.internal_hosts and any(address in network for network in INTERNAL)

    def _is_listed(self, host: str) -> bool:
        if not self.hosts or host in self.hosts or host in self.internal_hosts:
            return True
        labels = host.split(".")
        return any("*." + ".".join(labels[first:]) in self.hosts for first in range(1, len(labels)))


# -- connections --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``chunks`` is the body as it arrives, undecoded."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    target: Target
    """Where it came from, after redirects."""
    chunks: AsyncIterator[bytes] = field(repr=False)


def _system_look_up(host: str, port: int) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Outbound:
    """Checks targets and opens checked connections to them. Made once: it holds the trusted certificates."""

    def __init__(
        self,
        rules: Rules,
        *,
        look_up: LookUp = _system_look_up,
        network: httpcore.AsyncNetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """All but ``rules`` is for tests: who answers for names, who connects, whose certificates count."""
        self.rules = rules
        self._look_up = look_up
        self._network = _CheckedNetwork(self._addresses, network or httpcore.AnyIOBackend())
        self._ssl_context = ssl_context
        # Its own threads: names that take long to look up must not hold up whoever writes to disk.
        self._threads = ThreadPoolExecutor(LOOK_UPS, thread_name_prefix="specsem-look-up")

    def close(self) -> None:
        """Take no further look-ups."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def check(self, target: Target) -> None:
        """Whether one may go there as things are now; ``open`` checks again.

        Raises:
            Problem: ``url_refused`` (403); ``fetch_failed``, names can't be looked up at present.
        """
        self.rules.check(target)
        await self._addresses(target.host, target.port)

    async def admit(self, url: str) -> Target:
        """Read an address that a client names, and say at once where one may not go.

        Names that can't be looked up at present are let pass: ``open`` checks again.

        Raises:
            Problem: ``url_invalid`` (422), ``url_refused`` (403).
        """
        target = parse_url(url)
        try:
            await self.check(target)
        except Problem as problem:
            if problem.code != "fetch_failed":
                raise
        return target

    @asynccontextmanager
    async def open(
        self,
        method: str,
        target: Target,
        *,
        headers: Iterable[tuple[str, str]] = (),
        content: bytes | None = None,
        redirects: int = 0,
    ) -> AsyncIterator[Answer]:
        """Ask once, following up to so many redirects, each checked like the first address.

        The times of the rules hold until the block ends: to connect, between two pieces, for all of it.

        Raises:
            Problem: ``url_refused``; ``fetch_failed``, another time may go better; ``not_fetchable``, none
                will. In the block too, from ``chunks``.
        """
        limit = asyncio.timeout(self.rules.timeout_s)
        try:
            async with limit:
                for _ in range(redirects + 1):
                    with _problems_of(target):
                        async with self._ask(method, target, headers, content) as answer:
                            if not redirects or answer.status not in REDIRECTS:
                                yield answer
                                return
                    target = _redirected(answer)
                raise _not_fetchable("It is redirected too often.")
        except TimeoutError:
            if not limit.expired():
                raise  # the block's own
            raise Problem(
                "fetch_failed", f"The host {target.host} took longer than {self.rules.timeout_s:g} s."
            ) from None

    @asynccontextmanager
    async def _ask(
        self, method: str, target: Target, headers: Iterable[tuple[str, str]], content: bytes | None
    ) -> AsyncIterator[Answer]:
        self.rules.check(target)
        url, rules = target._request_url(), self.rules
        sent = [
            ("Host", target._authority),
            ("User-Agent", f"SpecSem/{__version__}"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
            *headers,
        ]
        timeout = {"connect": rules.connect_s, "read": rules.idle_s, "write": rules.idle_s}
        if target.scheme == "https" and self._ssl_context is None:
            self._ssl_context = await asyncio.to_thread(httpcore.default_ssl_context)
        async with (
            httpcore.AsyncHTTPConnection(
                url.origin, ssl_context=self._ssl_context, network_backend=self._network
            ) as connection,
            connection.stream(
                method, url, headers=sent, content=content, extensions={"timeout": timeout}
            ) as response,
        ):
            received = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
            }
            yield Answer(response.status, received, target, response.aiter_stream())

    async def _addresses(self, host: str, port: int) -> list[IPAddress]:
        """The addresses of a host, all of them allowed.

        Raises:
            Problem: ``url_refused``; ``fetch_failed``, names can't be looked up at present.
        """
        found = _literal(host) or await self._looked_up(host, port)
        if not found or not all(self.rules.allows(host, address) for address in found):
            raise Problem(
                "url_refused", f"The host {host} is refused: it is unknown, or not open to everybody."
            )
        return found

    async def _looked_up(self, host: str, port: int) -> list[IPAddress]:
        # A name without a dot is one of the network that this machine is in.
        if "." not in host and host not in self.rules.internal_hosts:
            return []
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.rules.connect_s):
                texts = await loop.run_in_executor(self._threads, self._look_up, host, port)
        except (OSError, UnicodeError) as error:
            if isinstance(error, TimeoutError) or (
                isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            ):
                raise Problem("fetch_failed", f"The host {host} can't be looked up at present.") from None
            return []
        return list(dict.fromkeys(ip_address(text.partition("%")[0]) for text in texts))


class _CheckedNetwork(httpcore.AsyncNetworkBackend):
    """What httpcore connects with: it hears a host and gets a connection to a checked address."""

    def __init__(
        self,
        addresses: Callable[[str, int], Awaitable[list[IPAddress]]],
        network: httpcore.AsyncNetworkBackend,
    ) -> None:
        self._addresses = addresses
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._addresses(host, port)
        # One that is not reached (IPv6 on a machine without it) leaves the others their share of the time.
        share_s = None if timeout is None else timeout / len(addresses)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(
                    str(address), port, share_s, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(
            str(addresses[-1]), port, share_s, local_address, socket_options
        )


def _literal(host: str) -> list[IPAddress]:
    try:
        return [ip_address(host)]
    except ValueError:
        return []


def _redirected(answer: Answer) -> Target:
    """Where a redirect leads. It is the other server's text: what can't be read is its fault."""
    target = answer.target
    try:
        # As it arrived; most that isn't ASCII there is UTF-8.
        location = answer.headers["location"].encode("latin-1").decode("utf-8")
        following = parse_url(urljoin(target.url, location))
    except (KeyError, ValueError, Problem):
        raise _not_fetchable("It is redirected to what is no address.") from None
    if target.scheme == "https" and following.scheme == "http":
        raise _not_fetchable("It is redirected from https to http.")
    return following


@contextmanager
def _problems_of(target: Target) -> Iterator[None]:
    """What can go wrong on the way, told as problems. Of a host that may be fetched from it may be told."""
    try:
        yield
    except httpcore.TimeoutException:
        raise Problem("fetch_failed", f"The host {target.host} did not answer in time.") from None
    except httpcore.ConnectError as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise _not_fetchable(f"The certificate of {target.host} can't be verified.") from None
        raise Problem("fetch_failed", f"The host {target.host} could not be connected to.") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError):
        raise Problem("fetch_failed", f"The connection to {target.host} broke off.") from None


def _not_fetchable(why: str) -> Problem:
    return Problem("not_fetchable", f"There is no file to be had at this address. {why}")
