"""The configuration of a server: one frozen value, whose fields are the option table.

Every option is one field, declared once with `option(...)`: the fields of `Config` are those of its parts
(socket_options.py, core_options.py, process_options.py), split by subject only because the whole is long.
`OPTIONS` is the table as values, for readers, help and documents.

`resolve` turns mentions of options (from a command line; a file's reader makes the same values) into a Config,
collects *every* mistake before it complains, and keeps where each value came from. It touches no file and no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from corelet.base import address
from corelet.base.address import Address
from corelet.base.cache_options import CacheOptions
from corelet.base.cache_spec import caches_of
from corelet.base.core_options import COOPERATIVE, DEFAULT_CORES, ApplicationOptions, CoreOptions
from corelet.base.errors import ConfigError
from corelet.base.limits import Limits
from corelet.base.option import Kind, Option, options_of
from corelet.base.process_options import AboutOptions, CheaperOptions, LogOptions, ProcessOptions, ReloadOptions
from corelet.base.socket_options import DEFAULT_KEEPALIVE_SECONDS, LimitOptions, SocketOptions, TimeoutOptions
from corelet.base.system_options import HookOptions, PrivilegeOptions, ServiceOptions
from corelet.base.websocket_options import WebsocketOptions

LARGEST_BLOCK_BYTES = 65535
"""What the u16 length of a uwsgi packet can say."""

ASYNCIO_SOCKET_TIMEOUT_SECONDS = 30.0
"""What `asyncio` raises the socket-timeout to (uWSGI: plugins/asyncio/asyncio.c:27-37)."""

LOOPS = ("asyncio", "uvloop")


# The bases are named from the last group to the first: dataclass fields are collected in reverse order of the bases.
@dataclass(frozen=True, kw_only=True)
class Config(
    AboutOptions,
    HookOptions,
    ServiceOptions,
    PrivilegeOptions,
    CheaperOptions,
    ReloadOptions,
    ProcessOptions,
    LogOptions,
    CacheOptions,
    ApplicationOptions,
    WebsocketOptions,
    CoreOptions,
    LimitOptions,
    TimeoutOptions,
    SocketOptions,
):
    """Every option with its value. A Config made by hand has the defaults for whatever is not given."""

    written: tuple[tuple[str, str | None], ...] = field(default=(), compare=False, repr=False)
    """What was written, in its order: the name of an option, or a key of one's own in a file, and its text (None:
    none). Applications read it (`uwsgi.opt`); the server does not."""

    @property
    def cores(self) -> int:
        """How many requests run at once in one process.

        Without asyncio or async it is 100. A core that nobody uses costs nothing (greenlets are made when needed), so
        the number only bounds how many requests the application is given at once: enough that a hundred replies which
        wait for something do not queue, few enough that a hundred database connections are a number one can plan for.
        """
        return self.asyncio or self.async_ or DEFAULT_CORES

    @property
    def has_master(self) -> bool:
        """Whether a master process is asked for, by its name or by an option that only a master can carry out."""
        return bool(
            self.master
            or self.processes > 1
            or self.cheaper
            or self.preload
            or self.master_fifo
            or self.py_autoreload
            or self.touch_reload
            or self.touch_workers_reload
            or self.touch_chain_reload
            or self.max_requests
            or self.max_worker_lifetime
            or self.reload_on_rss
            or self.reload_on_as
            or self.attach_daemon
            or self.cron
            or self.cron2
        )

    @property
    def limits(self) -> Limits:
        """The limits of the wire that these options ask for."""
        return Limits(
            max_request_line_bytes=self.http_max_request_line,
            max_header_count=self.http_max_headers,
            max_head_bytes=self.http_max_head,
            max_body_bytes=self.limit_post,
            max_chunk_line_bytes=self.http_max_chunk_line,
            max_trailer_bytes=self.http_max_trailer,
            max_block_bytes=min(self.buffer_size, LARGEST_BLOCK_BYTES),
            max_vars=self.max_vars,
        )

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where to listen: the sockets, then the uwsgi sockets, then the HTTP sockets. Raises ConfigError."""
        return tuple(
            address.parse(text, protocol)
            for texts, protocol in (
                (self.socket, self.protocol),
                (self.uwsgi_socket, "uwsgi"),
                (self.http_socket, "http"),
            )
            for text in texts
        )


OPTIONS: tuple[Option, ...] = options_of(Config)


@dataclass(frozen=True)
class Mention:
    """One place where an option was written: the text of its value (None = none was written) and where it stood."""

    option: Option
    text: str | None
    origin: str

    @property
    def name(self) -> str:
        """The option's name as it was written there, or its first name where a letter or a beginning of it was."""
        name = self.origin.rpartition(" ")[2].lstrip("-").replace("_", "-")
        return name if name in self.option.names else self.option.name


@dataclass(frozen=True)
class Resolved:
    """A Config, where each of its values came from (by field), and what the operator should know about it."""

    config: Config
    origins: Mapping[str, str]
    notes: tuple[str, ...]


def resolve(mentions: Iterable[Mention], problems: Iterable[str] = ()) -> Resolved:
    """The Config that the mentions make, in their order: the last of a repeated option holds, lists grow.

    `problems` are mistakes that the reader has found; they are reported together with the ones found here, one per
    line of the ConfigError's message.
    """
    found = list(problems)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    notes: list[str] = []
    everything = list(mentions)
    for mention in everything:
        row = mention.option
        try:
            value = row.parse(mention.text)
        except ConfigError as error:
            found.append(f"{mention.origin}: {error}")
            continue
        values[row.field] = (*values.get(row.field, ()), *value) if row.kind is Kind.LIST else value
        origins[row.field] = mention.origin
        if row.field == "asyncio":
            _raise_socket_timeout(values, origins, notes)
    found += _adjust(values, origins, notes)
    config = Config(**values, written=tuple((mention.name, mention.text) for mention in everything))
    found += _address_problems(config)
    found += _cache_problems(config, notes)
    if unknown := config.cooperating - set(COOPERATIVE):
        known = ", ".join(COOPERATIVE)
        found.append(f"{origins['cooperate']}: expected any of {known}, or none; got {', '.join(sorted(unknown))}")
    if found:
        raise ConfigError("\n".join(found))
    return Resolved(config, {row.field: origins.get(row.field, "default") for row in OPTIONS}, tuple(notes))


def _raise_socket_timeout(values: dict[str, Any], origins: dict[str, str], notes: list[str]) -> None:
    """uWSGI raises it at the moment it reads `asyncio`: a socket-timeout that stands later is left as it is."""
    given = values.get("socket_timeout", Config.socket_timeout)
    if 0 < given < ASYNCIO_SOCKET_TIMEOUT_SECONDS:
        values["socket_timeout"] = ASYNCIO_SOCKET_TIMEOUT_SECONDS
        origins["socket_timeout"] = f"raised by {origins['asyncio']}"
        notes.append(
            f"asyncio raises socket-timeout from {given:g} to {ASYNCIO_SOCKET_TIMEOUT_SECONDS:g} s; "
            "a socket-timeout after it is kept"
        )


def _adjust(values: dict[str, Any], origins: dict[str, str], notes: list[str]) -> list[str]:
    """What one option means for another, or for this version. Returns problems; changes `values`, adds notes."""
    problems = []
    if values.get("buffer_size", 0) > LARGEST_BLOCK_BYTES:
        notes.append(
            f"buffer-size {values['buffer_size']} is more than a uwsgi packet can say; {LARGEST_BLOCK_BYTES} holds"
        )
        values["buffer_size"] = LARGEST_BLOCK_BYTES
    if values.get("http_keepalive") == 1:
        values["http_keepalive"] = DEFAULT_KEEPALIVE_SECONDS  # the flag spelled as a number, as in uWSGI's http plugin
    if values.get("threads", 1) > 1:
        notes.append(f"threads {values['threads']}: requests run on cores; asyncio N sets how many at once")
    if values.get("loop", "asyncio") not in LOOPS:
        notes.append(f"loop {values['loop']}: corelet runs on asyncio or uvloop; asyncio is used")
        values["loop"] = "asyncio"
    if "module" in values and "wsgi_file" in values:
        notes.append("module and wsgi-file are both given: module is served, wsgi-file is not loaded, as in uWSGI")
    if "module" in values and not values["module"].partition(":")[0].strip():
        problems.append(
            f"{origins['module']}: expected package.module or package.module:callable; got {values['module']!r}; name "
            "the module, or use callable for the name alone"
        )
    if ":" in values.get("logto", "") and "/" not in values["logto"]:
        problems.append(f"{origins['logto']}: logging to a network address is not in this version; give a file")
    return problems


def _cache_problems(config: Config, notes: list[str]) -> list[str]:
    _specs, said, problems = caches_of(config.cache2, config.cache, config.cache_blocksize, config.cache_no_expire)
    notes += said
    if config.cache_store is not None:
        problems = (
            *problems,
            f"--cache-store {config.cache_store}: this version keeps no cache in a file; it survives reloads, and "
            "`cache2 = name=default,items=N,backend=redis://HOST/0` survives restarts",
        )
    return list(problems)


def _address_problems(config: Config) -> list[str]:
    problems = []
    seen: dict[tuple[object, ...], str] = {}
    for name, texts in (
        ("socket", config.socket),
        ("uwsgi-socket", config.uwsgi_socket),
        ("http-socket", config.http_socket),
    ):
        for text in texts:
            try:
                found = address.parse(text)
            except ConfigError as error:
                problems.append(f"--{name}: {error}")
                continue
            place = (found.kind, found.host, found.port, found.path)
            if found.descriptor is not None or (found.is_tcp and (config.reuse_port or not found.port)):
                continue  # a descriptor has its own message, port 0 is another one each time
            if place in seen:
                problems.append(f"--{name}: {text} is named already by --{seen[place]}; remove one of them")
            seen.setdefault(place, name)
    return problems
