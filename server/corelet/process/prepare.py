"""What stands between the configuration and the first request: sockets, privileges, pid files, hooks, in one order.

    hook-asap, pid files checked, sockets bound, hook-as-root, pid files written, privileges dropped, hook-as-user

Nothing of the application is loaded before privileges are dropped (security rule 27), and nothing is loaded for a port
that is taken. A master that has replaced itself (re-exec) finds most of it done.
"""

from __future__ import annotations

import gc
import logging
import os
import platform
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from corelet import __version__
from corelet.api import cooperate, uwsgi
from corelet.api.cache.redis import require_redis
from corelet.api.server import Server, be
from corelet.base import forks, logs
from corelet.base.config import Config
from corelet.base.errors import ConfigError
from corelet.base.loading import Applications, load_applications
from corelet.process import privileges, signals
from corelet.process.attached import AttachedDaemons
from corelet.process.cache_folder import CacheFolder
from corelet.process.cron import Crons
from corelet.process.fifo import check_fifo
from corelet.process.handover import Handover, failures_only_said
from corelet.process.hooks import Hooks
from corelet.process.listening import ListeningSocket
from corelet.process.pidfile import PidFiles
from corelet.process.sizing import Policy
from corelet.process.sockets import bind_all, rebind
from corelet.process.systemd import Notifier
from corelet.process.title import ProcessTitle
from corelet.process.touch import TouchFiles
from corelet.serving import compat, local
from corelet.serving.worker import Worker

logger = logging.getLogger("corelet")

_USUAL_THRESHOLD = gc.get_threshold()


@dataclass
class Prepared:
    """A process that is ready to load the application, and what it has to clean up."""

    config: Config
    file: logs.LogFile
    hooks: Hooks
    pid_files: PidFiles
    notifier: Notifier
    title: ProcessTitle
    daemons: AttachedDaemons
    crons: Crons
    cache_folder: CacheFolder
    sockets: list[ListeningSocket] = field(default_factory=list)
    no_longer_wanted: list[ListeningSocket] = field(default_factory=list)
    on_ready: Callable[[], None] = lambda: None

    def ready(self) -> None:
        """The first requests can come."""
        self.on_ready()
        self.notifier.ready("serving")

    def release(self) -> None:
        """Close the sockets: a new connection is refused from here on."""
        for sock in (*self.sockets, *self.no_longer_wanted):
            sock.retire(self.config.vacuum)

    def leave_behind(self) -> None:
        """In a process that the application has forked: let go of the sockets, and of handlers for signals."""
        signals.back_to_default_unless_the_applications()
        forks.let_go(sock.fileno() for sock in (*self.sockets, *self.no_longer_wanted))

    def clean_up(self) -> None:
        """Leave nothing behind."""
        self.release()
        self.pid_files.retire(self.config.vacuum)
        self.cache_folder.remove()
        self.hooks.run("as-user-atexit")


def open_log(config: Config, again: bool = False) -> logs.LogFile:
    """Send events, and what the application prints, where the configuration says.

    `again`: by a master that has replaced itself. It writes there already, and may have no right to open the file.
    """
    path = config.daemonize or config.logto
    try:
        file = logs.LogFile(path, "daemonize" if config.daemonize else "logto")
    except ConfigError:
        if not again or path is None:
            raise
        file = logs.LogFile.open_already(path)
    logs.setup(file)
    file.redirect_standard_streams()
    return file


def prepare(config: Config, file: logs.LogFile, handed: Handover | None, inherited: Sequence[int]) -> Prepared:
    """Everything up to the application. Raises OperatorError, with nothing left behind."""
    hooks = Hooks.from_config(config)
    identity = privileges.identity_of(config)
    require_redis(config.caches)
    prepared = Prepared(
        config=config,
        file=file,
        hooks=hooks,
        pid_files=PidFiles(config),
        notifier=Notifier.from_environment(),
        title=ProcessTitle(config),
        daemons=AttachedDaemons(config.attach_daemon),
        crons=Crons.from_config(config),
        cache_folder=CacheFolder.adopt(
            identity if config.master_as_root else None, handed.rest.get("caches") if handed is not None else None
        ),
    )
    raise_descriptor_limit()
    if handed is None:
        hooks.run("asap")
        prepared.pid_files.check()
        prepared.sockets = bind_all(config, inherited)
    else:
        prepared.sockets, prepared.no_longer_wanted = rebind(config, handed.sockets)
    try:
        if handed is None:
            hooks.run("as-root")
        with failures_only_said(handed):
            prepared.pid_files.write_early()
        privileges.apply_umask(config)
        if identity is not None and not config.master_as_root:
            privileges.become(identity)
        with failures_only_said(handed):
            prepared.pid_files.write_late()
        prepared.cache_folder.provide(config)
        if handed is None:
            hooks.run("as-user")
    except BaseException:
        prepared.release()
        prepared.cache_folder.remove()
        prepared.pid_files.retire(config.vacuum)
        raise
    return prepared


def try_out(config: Config) -> None:
    """Do whatever a start does that can be done beside a running server. Raises OperatorError.

    What a master would leave to this program is read, and the sockets that it has not are bound for a moment.
    """
    would_be_left = Handover.of_our_parent()
    Hooks.from_config(config)
    Crons.from_config(config)
    AttachedDaemons(config.attach_daemon)
    Policy.from_config(config)
    pid_files = PidFiles(config)
    TouchFiles(config)
    require_redis(config.caches)
    privileges.identity_of(config)
    if would_be_left is not None:
        _try_out_for_a_master(config, pid_files, os.getppid())
        _now, unwanted = rebind(config, would_be_left.sockets)
        for sock in {*_now, *unwanted} - set(would_be_left.sockets):
            sock.retire(vacuum=True)


def _try_out_for_a_master(config: Config, pid_files: PidFiles, master: int) -> None:
    """What the master of that process id has to be able to do once it has become this program."""
    if not config.has_master:
        raise ConfigError(
            "a server without a master cannot take over the workers of one; stop the server and start it again"
        )
    pid_files.check(master)
    pid_files.check_writable(master)
    for path in config.master_fifo:
        check_fifo(path)


def enter(server: Server) -> None:
    """Be this process for what the application will import. Before it is loaded, in a master that preloads too."""
    if server.config.thread_local == "core":
        local.install()
    be(server)
    uwsgi.install(server)
    cooperate.install(server.config.cooperating)


def begin(server: Server, worker: Worker) -> None:
    """The application is loaded and its worker made: what the API has to do with a worker is done now."""
    server.worker = worker
    uwsgi.serve(worker)


def load(config: Config, hooks: Hooks) -> Applications:
    """Load the application, between its hooks. The loop must have been made and set."""
    if config.asyncio_compat:
        compat.install()
    hooks.run("pre-app")
    try:
        applications = load_applications(config)
    finally:
        signals.raise_again()
    if forks.is_fork():
        forks.leave()
    hooks.run("post-app")
    spare_the_collector(config)
    return applications


def spare_the_collector(config: Config) -> None:
    """Let the garbage collector pass over what was loaded, and come less often, unless the application has tuned it.

    With 2,000 requests in flight it took a fifth of the processor: every 700 objects, which a hundred of them make in a
    moment, it looked at those that all the others are waiting with.
    """
    gc.collect()
    gc.freeze()  # in a master that preloads this also keeps workers from writing to the pages that they share
    if config.gc_threshold and gc.get_threshold() == _USUAL_THRESHOLD:
        gc.set_threshold(config.gc_threshold, *_USUAL_THRESHOLD[1:])


def announce(config: Config, sockets: list[ListeningSocket], workers: str = "") -> None:
    """Say who we are and where we listen."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    who = f"{workers}{config.cores} cores, loop {config.loop}"
    logger.info("corelet %s on %s, pid %d, %s", __version__, python, os.getpid(), who)
    for sock in sockets:
        logger.info("listening on %s (%s)", sock.name, sock.address.protocol)
    if os.geteuid() == 0 and not config.uid:
        logger.warning("running as root: give uid, a user who needs only to read the application")


def raise_descriptor_limit() -> None:
    """Use all descriptors that the administrator allows: the soft limit of 1024 is for programs that call select()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            logger.info("the limit of open files stays at %d: %s", soft, error)
