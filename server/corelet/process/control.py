"""What the master does when it is given an order: by a signal, by a letter in a fifo, by a touched file.

Which signal and letter stands for which order is in fifo.py. A reload has one of two forms: new workers of this very
program, which is the usual one, or a whole new program in this process (re-exec), which takes over the sockets and the
workers. The second is tried out first, by a process of its own that imports everything and exits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from corelet.base.config import Config
from corelet.base.errors import OperatorError
from corelet.base.process_options import MAX_PROCESSES
from corelet.process import commands, handover, report, signals
from corelet.process.fifo import SIGNALS, MasterFifo
from corelet.process.fleet import KILL_GRACE_SECONDS
from corelet.process.life import State
from corelet.process.listening import ListeningSocket
from corelet.process.recycling import memory_of
from corelet.process.sizing import Policy
from corelet.process.sockets import rebind

if TYPE_CHECKING:
    from corelet.process.master import Master

logger = logging.getLogger("corelet.process")

# What is done once, at the start of a master: a reload cannot change it, a re-exec can.
ONLY_AT_START = (
    "logto", "daemonize", "pidfile", "pidfile2", "safe_pidfile", "safe_pidfile2", "uid", "gid", "add_gid", "umask",
    "master_fifo", "master_as_root", "preload", "attach_daemon", "cron", "cron2", "loop", "thread_local",
)  # fmt: skip


LAST_RELOAD_FAILED = "serving; the last reload failed"  # for `systemctl status`
EXEC_WATCHDOG_SECONDS = 600.0  # for a new program to load what it preloads: meanwhile nobody feeds the watchdog
MAX_STEPS = 100  # letters of one read that each add or take a worker
MOST_TIMES = 4  # so many times `processes` can be asked for by SIGTTIN


class Control:
    """Orders, carried out on a master."""

    def __init__(self, master: Master) -> None:
        self.master = master
        self._folder = _folder()
        self._trial = 0  # process id of the try-out of a new program
        self._exec_due = False
        self._wanted = 0  # how many workers a configuration asks for that is being taken up
        self._before: tuple[Config, list[ListeningSocket], int] | None = None  # what to go back to
        self._orders: dict[str, Callable[[str], None]] = {
            "reload": self._reload,
            "brutal-reload": lambda why: self._reload(why, brutal=True),
            "workers-reload": self._new_generation,
            "brutal-workers-reload": lambda why: self._new_generation(why, brutal=True),
            "chain-reload": lambda why: self._new_generation(why, chain=True),
            "stop": self._stop,
            "quit": self._quit,
            "reopen-log": self._reopen_log,
            "pause": self._pause,
            "pidfiles": self._write_pid_files,
            "stats": self._statistics,
            "workers": self._workers,
            "more": lambda why: self.resize(self.master.fleet.wanted + 1, why),
            "fewer": lambda why: self.resize(self.master.fleet.wanted - 1, why),
            "cheap": lambda why: self.resize(Policy.from_config(self.master.config).lowest, why),
            "exec": self._try_out,
            "reopen-fifo": self._reopen_fifos,
        }

    def obey(self, order: str, why: str) -> None:
        """Carry out an order; what an operator did wrong is logged, and changes nothing."""
        try:
            self._orders[order](why)
        except OperatorError as error:
            logger.error("%s (%s): %s; everything stays as it was", order, why, error)
        except Exception:  # an order must not be able to end the server, whatever it meets
            logger.exception("%s (%s): failed in the server itself; everything stays as it was", order, why)

    def obey_signal(self, number: int) -> None:
        """The order that a signal gives."""
        order = self.master.prepared.hooks.orders.get(number)
        if order is None and number in SIGNALS:
            order = SIGNALS[number].name
        if order is not None:  # a preloaded application may have handlers for signals of its own
            self.obey(order, signal.Signals(number).name)

    def obey_letters(self, fifo: MasterFifo) -> None:
        """The orders that were written into a fifo."""
        orders = fifo.read()
        at_most = dict.fromkeys(orders, 1) | {"more": MAX_STEPS, "fewer": MAX_STEPS, "stop": 3}
        for order in orders:  # the same order again and again, read at once, is one
            if at_most[order]:
                at_most[order] -= 1
                self.obey(order, f"master-fifo {order}")

    # -- reload ---------------------------------------------------------------------------------------------------

    def _reload(self, why: str, brutal: bool = False) -> None:
        if self.master.config.reload == "exec" or self.master.config.preload:
            self._try_out(why)
            return
        config = self.master.reconfigure().config
        self._take(config, why)
        self._new_generation(why, brutal=brutal)

    def _take(self, config: Config, why: str) -> None:
        """Use this configuration for what is started from now on. Raises OperatorError, with nothing changed."""
        master = self.master
        if config == master.config:
            return
        policy = Policy.from_config(config)
        sockets, unwanted = rebind(config, [*master.prepared.sockets, *master.prepared.no_longer_wanted])
        for name in ONLY_AT_START:
            if getattr(config, name) != getattr(master.config, name):
                logger.warning(
                    "reload (%s): %s has changed; only a new master takes it: restart, or `corelet control … exec`",
                    why, name.replace("_", "-"),
                )  # fmt: skip
        config = dataclasses.replace(config, **{name: getattr(master.config, name) for name in ONLY_AT_START})
        self._before = self._before or (master.config, master.prepared.sockets, master.fleet.wanted)
        master.prepared.sockets, master.config = sockets, config
        master.prepared.no_longer_wanted = unwanted
        wanted = min(max(master.fleet.wanted, policy.lowest), policy.highest) if config.cheaper else config.processes
        self._wanted = wanted
        self._resize_by(config, max(wanted, master.fleet.wanted))  # fewer only once the new generation serves
        master.rounds.config_changed()

    def _resize_by(self, config: Config, wanted: int) -> None:
        """Let the fleet have what it knows of a configuration, and so many workers."""
        fleet = self.master.fleet
        fleet = replace(fleet, worker_mercy=config.worker_reload_mercy, stop_mercy=config.reload_mercy)
        self.master.change(fleet.resize(wanted))

    def _new_generation(self, why: str, *, chain: bool = False, brutal: bool = False) -> None:
        master = self.master
        if master.fleet.stopping:
            return
        fleet = master.fleet.reload(why, chain=chain, brutal=brutal)
        logger.info("%sreload (%s): starting generation %d", "chain " if chain else "", why, fleet.coming)
        master.prepared.notifier.reloading()
        master.change(fleet)

    def generation_came(self) -> None:
        """The new generation serves: what the one before had is of no use any more."""
        self._before = None
        if self._wanted:
            self.resize(self._wanted, "the new configuration")
            self._wanted = 0
        for sock in self.master.prepared.no_longer_wanted:
            sock.retire(self.master.config.vacuum)
        self.master.prepared.no_longer_wanted.clear()

    def generation_failed(self) -> None:
        """The new generation does not come: a worker that dies now is replaced by one as it was."""
        master = self.master
        if not self._exec_due:  # otherwise the reload goes on: this one is given up for a new master
            master.prepared.notifier.ready(LAST_RELOAD_FAILED)
        self._wanted = 0
        if self._before is None:
            return
        master.config, sockets, wanted = self._before
        self._before = None
        for sock in (*master.prepared.sockets, *master.prepared.no_longer_wanted):
            if sock not in sockets:
                sock.retire(master.config.vacuum)
        master.prepared.sockets = sockets
        master.prepared.no_longer_wanted.clear()
        master.rounds.config_changed()
        self._resize_by(master.config, wanted)

    # -- a new program in this process ----------------------------------------------------------------------------

    def _try_out(self, why: str) -> None:
        if self.master.fleet.stopping:
            return
        if self._trial:
            logger.warning("reload (%s): the new master that is being tried out is given up for a newer one", why)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._trial, signal.SIGKILL)
        logger.info("reload (%s): trying out a new master", why)
        self._exec_due = False
        left = self._left()
        try:
            here = os.getcwd()
            os.chdir(self._folder)  # a preloaded application may have gone elsewhere
        except OSError as error:
            raise OperatorError(
                f"the folder of the start, {self._folder}, is not there any more ({error.strerror}); start the server "
                "from a folder that stays, and give chdir for the application"
            ) from error
        os.environ.update(left)  # so that it can say whether it understands what it will be left
        try:
            self._trial = commands.start(_program("--no-server"))
            self.master.prepared.notifier.reloading()
        finally:
            os.chdir(here)
            for name in left:
                del os.environ[name]
            self._keep()

    def reaped(self, pid: int, status: int) -> bool:
        """Whether this process was the try-out."""
        if pid != self._trial:
            return False
        self._trial = 0
        code = os.waitstatus_to_exitcode(status)
        if code:
            logger.error(
                "a new master does not start: %s; generation %d goes on serving",
                commands.ending(code), self.master.fleet.generation,
            )  # fmt: skip
            self.master.prepared.notifier.ready(LAST_RELOAD_FAILED)
        else:
            self._exec_due = True
        return True

    def exec_if_due(self) -> None:
        """Become the new program, once no worker is half started."""
        master = self.master
        fleet = master.fleet
        if not self._exec_due or fleet.stopping:
            return
        if fleet.coming and fleet.generation:
            logger.info("generation %d is given up for a new master", fleet.coming)
            master.change(fleet.give_up())
            self.generation_failed()
            return
        if fleet.coming or fleet.in_state(State.STARTING):
            return
        self._exec_due = False
        self._become_new_program()

    def _left(self) -> dict[str, str]:
        """What a new program is left, as variables of its environment; descriptors survive an exec until `_keep`."""
        master = self.master
        fleet = master.fleet
        return handover.write(
            sockets=master.prepared.sockets,
            workers=master.crew.handed_workers(),
            generation=fleet.generation,
            requests=master.crew.served,
            rest={
                "daemons": master.daemons.handover(),
                "crons": master.rounds.crons.handover(),
                "signals": master.router.handover(),
                "wanted": fleet.wanted,
                "paused": master.paused,
                "caches": master.prepared.cache_folder.handover(),
                "fifos": [fifo.path for fifo in master.fifos if fifo.made],
                "locks": master.crew.survive_exec(True),
            },
        )

    def _keep(self) -> None:
        """Nothing survives an exec any more."""
        for sock in self.master.prepared.sockets:
            sock.set_inheritable(False)
        for child in self.master.crew.children.values():
            child.survive_exec(False)
        self.master.prepared.cache_folder.keep()
        self.master.crew.survive_exec(False)

    def _become_new_program(self) -> None:
        left = self._left()
        prepared = self.master.prepared
        words = _program()
        logger.info("new master: exec of %s", " ".join(words))
        prepared.notifier.watchdog_waits(EXEC_WATCHDOG_SECONDS)
        try:
            with signals.held_back(
                signals.MASTER_SIGNALS
            ):  # the mask survives the exec; the new program lets them come when it listens
                os.chdir(self._folder)
                os.execve(  # noqa: S606 - no shell is what is wanted
                    words[0], words, {**os.environ, **prepared.notifier.environment(), **left}
                )
        except OSError as error:
            logger.error("the new master cannot be started: %s; the old one goes on", error.strerror)
            self._keep()
            prepared.notifier.watchdog_again()
            prepared.notifier.ready(LAST_RELOAD_FAILED)

    # -- the end --------------------------------------------------------------------------------------------------

    def _stop(self, why: str) -> None:
        master = self.master
        fleet = master.fleet
        now = time.monotonic()
        if not fleet.stopping:
            workers = len(fleet.in_state(State.STARTING, State.READY, State.DRAINING))
            logger.info("stopping (%s): %d workers finish what they have begun", why, workers)
            master.prepared.notifier.stopping()
            master.prepared.release()
            master.daemons.stop(now)
            master.end_by = now + fleet.stop_mercy
            master.crew.shorten(fleet.stop_mercy)
            master.change(fleet.stop(why, fleet.stop_mercy).shorten(fleet.stop_mercy, now))
        elif fleet.mercy_left > 0:
            logger.warning("stopping (%s): not waiting for running requests", why)
            master.end_by = min(master.end_by, now + KILL_GRACE_SECONDS)
            master.change(fleet.stop(why, 0.0).shorten(0.0, now))
            master.crew.tell_all("hurry")
        else:
            self._quit(why)

    def _quit(self, why: str) -> None:
        master = self.master
        logger.info("stopping at once (%s)", why)
        master.prepared.notifier.stopping()
        master.prepared.release()
        master.daemons.stop(time.monotonic())
        master.end_by = 0.0
        master.change(master.fleet.stop(why, 0.0).shorten(-1.0, time.monotonic()))
        master.crew.tell_all("quit")

    # -- the rest -------------------------------------------------------------------------------------------------

    def _write_pid_files(self, why: str) -> None:
        self.master.prepared.pid_files.write_early()
        self.master.prepared.pid_files.write_late()

    def resize(self, wanted: int, why: str) -> None:
        """Have so many workers; with cheaper no more than processes, and never more than four times as many."""
        config = self.master.config
        before = self.master.fleet.wanted
        most = min(config.processes * (1 if config.cheaper else MOST_TIMES), MAX_PROCESSES)
        fleet = self.master.fleet.resize(min(wanted, most))
        if fleet.wanted != before:
            logger.info("%d workers instead of %d (%s)", fleet.wanted, before, why)
            self.master.change(fleet)
        elif wanted < before:
            logger.info("%d worker is left, which is the least (%s)", before, why)
        elif wanted > before:
            logger.info("%d workers are the most that processes = %d allows (%s)", before, config.processes, why)

    def _pause(self, why: str) -> None:
        master = self.master
        master.paused = not master.paused
        logger.info(report.PAUSED if master.paused else report.RESUMED, why)
        master.crew.tell_all("pause" if master.paused else "resume")

    def _reopen_log(self, why: str) -> None:
        file = self.master.prepared.file
        if not file.reopen():
            return
        for child in self.master.crew.children.values():  # with the file itself: a worker may not be allowed to open it
            child.channel.send("reopen", descriptor=file.descriptor)
        logger.info("log opened again (%s)", why)

    def _reopen_fifos(self, why: str) -> None:
        for fifo in self.master.fifos:
            fifo.reopen()

    def looks(self) -> list[report.Look]:
        """All workers, as they are now."""
        children = self.master.crew.children
        found = []
        for member in self.master.fleet.members:
            child = children.get(member.pid)
            board = child.board if child is not None else None
            found.append(report.Look(member, board.glimpse() if board else None, memory_of(member.pid)))
        return found

    def _statistics(self, why: str) -> None:
        now = time.monotonic()
        for line in report.statistics(self.looks(), self.master.crew.served, now - self.master.born, now):
            logger.info("%s", line)

    def _workers(self, why: str) -> None:
        master = self.master
        for line in report.workers(master.fleet, self.looks(), master.config, time.monotonic(), paused=master.paused):
            logger.info("%s", line)


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return "/"


def _program(*before: str) -> list[str]:
    """The command that started us, with the interpreter's own path: it may be a link that points elsewhere by now.

    `before` are options that are put before ours.
    """
    words = sys.argv[1:]
    program = sys.orig_argv[1 : len(sys.orig_argv) - len(words)]
    return [sys.executable, *program, *before, *words]
