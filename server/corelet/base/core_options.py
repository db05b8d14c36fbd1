"""The options about cores and about the application: one declaration each, with the reason of its default.

Part of the option table (config.py joins the parts, option.py says what a declaration is).
"""

from __future__ import annotations

from dataclasses import dataclass

from corelet.base.option import Kind, option

DEFAULT_CORES = 100
COOPERATIVE = ("asgiref", "psycopg2", "psycopg", "sqlalchemy")


@dataclass(frozen=True, kw_only=True)
class CoreOptions:
    """Cores and the loop."""

    asyncio: int | None = option(
        kind=Kind.INTEGER,
        minimum=1,
        metavar="N",
        help=f"N cores: so many requests at once in one process; {DEFAULT_CORES} if neither asyncio nor async is given",
    )

    async_: int | None = option(
        kind=Kind.INTEGER, minimum=1, metavar="N", help="the same number under uWSGI's other name; asyncio goes first"
    )

    greenlet: bool = option(
        kind=Kind.FLAG,
        default=True,
        help="run cores as greenlets",
        accepted="cores are greenlets, always: there is no other engine",
    )

    loop: str = option(
        kind=Kind.TEXT,
        default="asyncio",
        metavar="asyncio or uvloop",
        help="the event loop (uvloop: pip install corelet[uvloop])",
    )

    # Visible, it makes Django's ORM refuse to work, and `asyncio.run`, async_to_sync and Flask's async views fail.
    running_loop: str = option(
        kind=Kind.CHOICE,
        default="hidden",
        choices=("hidden", "visible"),
        help="whether asyncio.get_running_loop() works inside a core; hidden is what synchronous frameworks need",
    )

    # As under gevent. Shared, concurrent cores would use one database connection of Django, inside one transaction.
    thread_local: str = option(
        "thread-local",
        "local",
        kind=Kind.CHOICE,
        default="core",
        choices=("core", "thread"),
        help="whether threading.local is one per core, or one per thread as in plain Python",
    )

    # Each of them waits by itself, and would hold the whole worker. Nobody who serves on cores wants that, and a
    # package that the application does not import is not touched.
    cooperate: str = option(
        kind=Kind.TEXT,
        default=",".join(COOPERATIVE),
        metavar="NAMES",
        help="packages that are made to wait by suspending their core, when the application imports them: any of "
        f"{', '.join(COOPERATIVE)}, with commas, or none",
    )

    # A view that nobody will read from is stopped as early as it can be. An application that must not be interrupted in
    # the middle of a wait (a payment that is under way) chooses next-wait, or ignore.
    client_gone: str = option(
        kind=Kind.CHOICE,
        default="unwind",
        choices=("unwind", "next-wait", "ignore"),
        help="what becomes of a request whose client has gone: unwind = ClientDisconnected is thrown into its wait "
        "at once; next-wait = the wait is finished, and the next one raises it; ignore = the view runs to its end",
    )

    asyncio_compat: bool = option(
        kind=Kind.FLAG, help="give back asyncio.coroutine, which Python 3.11 removed, for applications of its time"
    )

    max_connections: int = option(
        kind=Kind.INTEGER,
        default=0,
        metavar="N",
        help="most open connections of one process, idle ones included; 0 = 10000, or what the limit of open files "
        "leaves beside 64 for the application",
    )

    # A thousand requests of 25 KB are 25 MB: what a process may well hold, and more than queue-timeout lets grow old.
    max_queued: int = option(
        kind=Kind.INTEGER,
        default=1000,
        metavar="N",
        help="most complete requests that wait for a free core; then 503",
    )

    # A client of HTTP may close its sending half and still want the reply (`printf … | nc -N`); nginx never does so on
    # a uwsgi socket, where an end of file always means that the client has gone.
    http_eof: str = option(
        kind=Kind.CHOICE,
        default="half",
        choices=("half", "gone"),
        help="what the end of an HTTP peer's sending means: half = it may still read; gone = stop the request",
    )

    @property
    def cooperating(self) -> frozenset[str]:
        """The names in `cooperate`, unknown ones included; `none` is no name."""
        return frozenset(name.strip() for name in self.cooperate.split(",")) - {"none", ""}


@dataclass(frozen=True, kw_only=True)
class ApplicationOptions:
    """The application."""

    wsgi_file: str | None = option(
        "wsgi-file", "file", kind=Kind.TEXT, metavar="FILE", help="load the application from this file"
    )

    module: str | None = option(
        "module",
        "wsgi",
        kind=Kind.TEXT,
        short="w",
        metavar="MODULE[:CALLABLE]",
        help="load the application from a module: pkg.mod, pkg.mod:app or pkg.mod:factory(); goes before wsgi-file",
    )

    # uWSGI's default is `application` alone; Flask's own documents name it `app`, so that is tried next, with a note.
    callable: str | None = option(
        kind=Kind.TEXT,
        metavar="NAME",
        help="name of the callable where none is given: `application`, else `app`, by default",
    )

    mount: tuple[str, ...] = option(
        kind=Kind.LIST,
        metavar="/PREFIX=TARGET",
        help="serve an application under a prefix: /api=pkg.mod:app or /api=api.py",
    )

    manage_script_name: bool = option(
        kind=Kind.FLAG,
        help="choose the mount by PATH_INFO and move its prefix to SCRIPT_NAME; else by SCRIPT_NAME or UWSGI_APPID",
    )

    no_default_app: bool = option(
        kind=Kind.FLAG,
        help="where only mounts are given, refuse what no mount matches; else the first mount serves it, as in uWSGI",
    )

    # uWSGI without it starts and answers "Internal Server Error" to everybody; its next version turned the default.
    need_app: bool = option(
        kind=Kind.FLAG,
        default=True,
        help="do not start unless every application that is named can be loaded, and one is named",
    )

    chdir: str | None = option(
        kind=Kind.TEXT, metavar="FOLDER", help="go there before the application is loaded; imports are tried there too"
    )

    pythonpath: tuple[str, ...] = option(
        "pythonpath",
        "python-path",
        "pp",
        kind=Kind.LIST,
        metavar="FOLDER",
        help="look for modules here first (a glob is allowed; the last one given goes first, as in uWSGI)",
    )

    virtualenv: str | None = option(
        "virtualenv",
        "venv",
        "home",
        "pyhome",
        kind=Kind.TEXT,
        short="H",
        metavar="FOLDER",
        help="use the packages of this virtual environment (of the Python that corelet runs on)",
    )

    env: tuple[str, ...] = option(
        kind=Kind.LIST, metavar="NAME=VALUE", help="set an environment variable before the application is loaded"
    )

    # CPython's 700 (2000 from 3.13 on) suits a program that does one thing at a time. Here everything that waits is
    # looked at again each time. At 50,000 garbage in cycles may grow to some 10 MB before it is collected.
    gc_threshold: int = option(
        kind=Kind.INTEGER,
        default=50_000,
        metavar="N",
        help="new objects after which the garbage collector looks; 0 = Python's; the application's own goes first",
    )

    lazy_apps: bool = option(
        "lazy-apps",
        "lazy",
        kind=Kind.FLAG,
        default=True,
        help="load the application in the worker",
        accepted="the application is loaded in the worker, after its loop was made, unless preload is given",
    )

    single_interpreter: bool = option(
        kind=Kind.FLAG,
        short="i",
        default=True,
        help="one Python interpreter for all applications",
        accepted="there is one interpreter, always: mounts do not need more",
    )
