"""Whom the server becomes once its sockets are bound: uid, gid and groups, with uWSGI's names for the options.

The decision (`identity_of`) is apart from the deed (`become`), and is taken before anything is bound: an unknown user
is a mistake of the command line and should leave no trace. The deed comes after binding and before loading, so the code
of an application never runs as root (security rule 27).

One thing is stricter than in uWSGI, which leaves group 0 and root's groups in place when uid is given without gid: here
such a process gets the groups of its user. And what was dropped is tried again afterwards, because a process that kept
the right to come back (a capability that its launcher pinned) has dropped nothing.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

from corelet.base.config import Config
from corelet.base.errors import ConfigError, OperatorError

logger = logging.getLogger("corelet.process")

ROOT = 0

# 2**32 - 1 is -1 to setresuid(2), which means "leave it as it is".
MAX_ID = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers of a user, his group, and all groups he is in."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def current(cls) -> Self:
        """What this process is."""
        return cls(os.geteuid(), os.getegid(), tuple(os.getgroups()))


class _User(NamedTuple):
    """What the system knows of a user; a number may stand for one that it does not know."""

    uid: int
    name: str | None
    gid: int | None


def identity_of(config: Config, own: Identity | None = None) -> Identity | None:
    """Whom to become, or None when nobody else is asked for, or we are that one already.

    `own` is what this process is; None looks. Raises ConfigError for names that the system does not know, for a change
    that only root can make, and for chroot.
    """
    if config.chroot is not None:
        raise ConfigError(
            f"chroot {config.chroot}: not supported: the application's imports, the resolver and the certificates "
            "would all have to be in there; use a container, or RootDirectory= of systemd"
        )
    own = own or Identity.current()
    user = None if config.uid is None else _user(config.uid)
    gid = None if config.gid is None else _group("gid", config.gid)
    added = tuple(_group("add-gid", text) for text in config.add_gid)
    if own.uid != ROOT:
        _refuse_what_needs_root(config, own, user, gid, added)
        return None
    if user is None:
        if gid is not None:
            return _identity(own.uid, gid, added)
        return _identity(own.uid, own.gid, (*own.groups, *added)) if added else None
    return _identity_of_user(config, user, gid, added)


def _identity_of_user(config: Config, user: _User, gid: int | None, added: tuple[int, ...]) -> Identity:
    gid = user.gid if gid is None else gid
    if gid is None:
        raise ConfigError(
            f"uid {config.uid}: the system has no user of that number, so no group is known; give gid too"
        )
    if config.no_initgroups or user.name is None:
        return _identity(user.uid, gid, added)
    return _identity(user.uid, gid, (*os.getgrouplist(user.name, gid), *added))


def _identity(uid: int, gid: int, groups: tuple[int, ...]) -> Identity:
    return Identity(uid, gid, tuple(dict.fromkeys((gid, *groups))))


def _refuse_what_needs_root(
    config: Config, own: Identity, user: _User | None, gid: int | None, added: tuple[int, ...]
) -> None:
    """Without root an identity can be named, but not changed."""
    advice = "start as root, or leave it out and let the launcher choose (systemd: User=, Group=, SupplementaryGroups=)"
    if user is not None and user.uid != own.uid:
        raise ConfigError(f"uid {config.uid}: only root may become another user, and we are user {own.uid}; {advice}")
    if gid is not None and gid != own.gid:
        raise ConfigError(f"gid {config.gid}: only root may change its group, and ours is {own.gid}; {advice}")
    for text, number in zip(config.add_gid, added, strict=True):
        if number != own.gid and number not in own.groups:
            raise ConfigError(f"add-gid {text}: only root may add a group, and we are user {own.uid}; {advice}")


def _user(text: str) -> _User:
    if not _is_number(text):
        try:
            entry = pwd.getpwnam(text)
        except KeyError as error:
            raise ConfigError(f"uid {text}: the system has no such user; `getent passwd` lists them") from error
        return _User(entry.pw_uid, entry.pw_name, entry.pw_gid)
    uid = _number("uid", text)
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return _User(uid, None, None)
    return _User(uid, entry.pw_name, entry.pw_gid)


def _group(option: str, text: str) -> int:
    if _is_number(text):
        return _number(option, text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError as error:
        raise ConfigError(f"{option} {text}: the system has no such group; `getent group` lists them") from error


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _number(option: str, text: str) -> int:
    if len(text) > len(str(MAX_ID)) or int(text) > MAX_ID:
        raise ConfigError(f"{option} {text}: expected a name, or a number from 0 to {MAX_ID}")
    return int(text)


# ---- the deed ----


def become(identity: Identity) -> None:
    """Change to the identity, for good. Raises OperatorError when the system refuses, or would let us back."""
    try:
        # Groups first, user last: each step takes away the right to make the one before.
        os.setgroups(identity.groups)
        os.setgid(identity.gid)
        os.setuid(identity.uid)
    except OSError as error:
        raise OperatorError(
            f"cannot become user {identity.uid} and group {identity.gid}: {error.strerror}; the capabilities SETUID "
            "and SETGID are needed, or let the container or unit start us as that user, and leave uid and gid out"
        ) from error
    _verify(identity)
    logger.info(
        "now user %s, group %s, groups %s",
        _named(identity.uid, lambda: pwd.getpwuid(identity.uid).pw_name),
        _named(identity.gid, lambda: grp.getgrgid(identity.gid).gr_name),
        ", ".join(map(str, identity.groups)),
    )


def _verify(identity: Identity) -> None:
    """Neither a saved id nor a capability is left that leads back to root."""
    changed = (
        os.getresuid() == (identity.uid,) * 3
        and os.getresgid() == (identity.gid,) * 3
        and set(os.getgroups()) <= {identity.gid, *identity.groups}
    )
    if not changed:
        raise OperatorError(
            f"the system said yes, but we are not wholly user {identity.uid} and group {identity.gid}: uids "
            f"{os.getresuid()}, gids {os.getresgid()}, groups {os.getgroups()}; start us as that user instead of uid"
        )
    if identity.uid != ROOT and _may_become_root():
        raise OperatorError(
            f"as user {identity.uid} we could become root again, so nothing would have been dropped; start us without "
            "pinned capabilities (securebits, AmbientCapabilities=), or as that user instead of uid"
        )


def _may_become_root() -> bool:
    """Tried, since the ids do not show it: securebits let setuid() leave every capability in place."""
    try:
        os.setuid(ROOT)
    except OSError:
        return False
    return True


def _named(number: int, look_up: Callable[[], str]) -> str:
    try:
        return f"{look_up()} ({number})"
    except KeyError:
        return str(number)


def apply_umask(config: Config) -> None:
    """Set the umask that the configuration asks for; without one the launcher's stays."""
    if config.umask is not None:
        os.umask(config.umask)
