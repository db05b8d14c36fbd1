"""The options about the process as the system sees it: its user, its files, its neighbours. One declaration each.

Part of the option table (config.py joins the parts, option.py says what a declaration is).
"""

from __future__ import annotations

from dataclasses import dataclass

from corelet.base.option import Kind, option


@dataclass(frozen=True, kw_only=True)
class PrivilegeOptions:
    """User and permissions."""

    uid: str | None = option(
        kind=Kind.TEXT, metavar="USER", help="become this user, by name or number, once the sockets are bound"
    )

    gid: str | None = option(
        kind=Kind.TEXT, metavar="GROUP", help="become this group; without it, the group of uid's user"
    )

    add_gid: tuple[str, ...] = option(
        "add-gid", "additional-gid", kind=Kind.LIST, metavar="GROUP", help="an additional group"
    )

    no_initgroups: bool = option(
        kind=Kind.FLAG, help="do not take the groups that the system lists for uid; only gid and add-gid"
    )

    master_as_root: bool = option(kind=Kind.FLAG, help="only the workers become uid and gid; the master stays root")

    umask: int | None = option(
        kind=Kind.MODE, metavar="MASK", help="permissions that new files of the application do not get, octal"
    )

    chroot: str | None = option(
        kind=Kind.TEXT, metavar="FOLDER", help="not supported; refused with what to use instead"
    )


@dataclass(frozen=True, kw_only=True)
class ServiceOptions:
    """Service."""

    daemonize: str | None = option(
        "daemonize",
        "daemonize2",
        kind=Kind.TEXT,
        short="d",
        metavar="FILE",
        help="go to the background once the workers are ready, with all logs in this file",
    )

    pidfile: str | None = option(
        kind=Kind.TEXT, metavar="FILE", help="write our process id here, before privileges are dropped"
    )

    pidfile2: str | None = option(kind=Kind.TEXT, metavar="FILE", help="the same, after privileges are dropped")

    safe_pidfile: str | None = option(
        kind=Kind.TEXT, metavar="FILE", help="as pidfile, and do not start while the process it names is alive"
    )

    safe_pidfile2: str | None = option(kind=Kind.TEXT, metavar="FILE", help="as pidfile2, with the same check")

    no_server: bool = option(
        kind=Kind.FLAG, help="check the command line and everything that can be imported, then exit without serving"
    )

    procname: str | None = option(
        kind=Kind.TEXT, metavar="TITLE", help="name of all processes in ps (needs pip install corelet[procname])"
    )

    procname_master: str | None = option(kind=Kind.TEXT, metavar="TITLE", help="name of the master in ps")

    procname_prefix: str | None = option(kind=Kind.TEXT, metavar="TEXT", help="text before the names in ps")

    procname_prefix_spaced: str | None = option(
        kind=Kind.TEXT, metavar="TEXT", help="text before the names in ps, and a blank"
    )

    procname_append: str | None = option(kind=Kind.TEXT, metavar="TEXT", help="text after the names in ps")

    auto_procname: bool = option(kind=Kind.FLAG, help="name the processes: corelet master, corelet worker 1")


@dataclass(frozen=True, kw_only=True)
class HookOptions:
    """Hooks, daemons and cron.

    A hook is `exec:COMMAND`, `print:TEXT`, `exit:CODE` or `unix_signal:NUMBER gracefully_kill_them_all`. Commands are
    split as a shell would and run without one.
    """

    hook_asap: tuple[str, ...] = option(kind=Kind.LIST, metavar="HOOK", help="as soon as the configuration is read")

    hook_as_root: tuple[str, ...] = option(kind=Kind.LIST, metavar="HOOK", help="before privileges are dropped")

    hook_as_user: tuple[str, ...] = option(kind=Kind.LIST, metavar="HOOK", help="after privileges are dropped")

    hook_as_user_atexit: tuple[str, ...] = option(kind=Kind.LIST, metavar="HOOK", help="when the server ends")

    hook_master_start: tuple[str, ...] = option(kind=Kind.LIST, metavar="HOOK", help="when the master has started")

    hook_post_fork: tuple[str, ...] = option(kind=Kind.LIST, metavar="HOOK", help="in each worker, when it begins")

    hook_pre_app: tuple[str, ...] = option(kind=Kind.LIST, metavar="HOOK", help="before the application is loaded")

    hook_post_app: tuple[str, ...] = option(kind=Kind.LIST, metavar="HOOK", help="after the application was loaded")

    hook_accepting: tuple[str, ...] = option(
        kind=Kind.LIST, metavar="HOOK", help="in each worker, when it begins to accept"
    )

    exec_asap: tuple[str, ...] = option(kind=Kind.LIST, metavar="COMMAND", help="hook-asap = exec:COMMAND")

    exec_as_root: tuple[str, ...] = option(kind=Kind.LIST, metavar="COMMAND", help="hook-as-root = exec:COMMAND")

    exec_as_user: tuple[str, ...] = option(kind=Kind.LIST, metavar="COMMAND", help="hook-as-user = exec:COMMAND")

    exec_as_user_atexit: tuple[str, ...] = option(
        kind=Kind.LIST, metavar="COMMAND", help="hook-as-user-atexit = exec:COMMAND"
    )

    exec_pre_app: tuple[str, ...] = option(kind=Kind.LIST, metavar="COMMAND", help="hook-pre-app = exec:COMMAND")

    exec_post_app: tuple[str, ...] = option(kind=Kind.LIST, metavar="COMMAND", help="hook-post-app = exec:COMMAND")

    attach_daemon: tuple[str, ...] = option(
        kind=Kind.LIST,
        metavar="COMMAND",
        help="run this command beside the workers; start it again when it ends, end it with the server",
    )

    cron: tuple[str, ...] = option(
        kind=Kind.LIST,
        metavar="'MINUTE HOUR DAY MONTH WEEKDAY COMMAND'",
        help="run a command at these times; -1 = every, -5 = every fifth",
    )

    cron2: tuple[str, ...] = option(
        kind=Kind.LIST,
        metavar="'minute=M,hour=H,day=D,month=M,week=W,unique=1 COMMAND'",
        help="the same with names; what is not named is every; unique = not while the last one still runs",
    )
