"""The store of one machine: an SQLite file for each cache, in a folder that the master made. It knows no other process.

SQLite and not LMDB: LMDB's get costs a fifth, but its lock is a mutex in shared memory, which a stopped writer keeps
for ever, with every other worker behind it; and its keys end at 511 bytes. SQLite's lock is one of the kernel's, gone
with its process, and who does not get it is told so. In WAL mode readers wait for nobody. Nothing is synced: the file
is as lasting as the server.

A process that dies in the middle of a write leaves frames in the log that nobody has committed, which the next one
passes over. No connection is ever carried over a fork: it would lose its locks.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from corelet.api.cache.store import NUMBER_BYTES, Change, Complaints, changed
from corelet.api.cache.waiting import let_others_run, pauses
from corelet.base.cache_spec import CacheSpec

T = TypeVar("T")
Row = tuple[int, float, int]  # its number, when it expires (0: never), blocks

SWEEP_ITEMS = 100  # at a time, and for so long: 64 KB take half a millisecond to free
REMOVE_SECONDS = 0.002
CHECKPOINT_PAGES = 256  # of 4 KB: what one writer in many copies back from the log, in a millisecond
WRITES_BETWEEN_LOOKS = 256
RETRY_SECONDS = 1.0  # after a failure

# A reader that was stopped (SIGSTOP) keeps the log from being used again from its beginning: it grows with every write.
MAX_LOG_BYTES = 64 * 1024 * 1024
USUAL_LOG_BYTES = 4 * 1024 * 1024

SCHEMA = (
    "create table if not exists items (key blob primary key, value blob not null, expires real not null,"
    " blocks integer not null, used integer not null)",
    "create index if not exists expiring on items (expires) where expires > 0",
    "create table if not exists total (one integer primary key, items integer not null, blocks integer not null)",
    "insert or ignore into total values (1, 0, 0)",
)
LRU_INDEX = "create index if not exists used on items (used)"

VALUE = "select value from items where key = ? and (expires = 0 or expires > ?)"
ROW = "select rowid, expires, blocks from items where key = ?"
UPDATE = "update items set value = ?, expires = ?, blocks = ?, used = ? where rowid = ?"
COUNT = "update total set items = items + ?, blocks = blocks + ?"
LIVE = "expires = 0 or expires > ?"


class _LogIsLong(OSError):
    """The store cannot be written to for the moment."""


class Embedded:
    """A Store in a file. `folder` None: there is nowhere to keep it, and it answers so."""

    def __init__(self, spec: CacheSpec, folder: str | None, sweep_seconds: float) -> None:
        self.spec = spec
        name = hashlib.sha256(spec.name.encode()).hexdigest()[:16] + ".db"  # a cache may be called anything
        self.path = None if folder is None else Path(folder, name)
        self.complaints = Complaints(spec.name)
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()  # threads of the application; never held across a wait
        self._sweep_seconds = sweep_seconds
        self._sweep_at = 0.0
        self._writes = 0
        self._log_is_long = False
        self._retry_at = 0.0
        _stores.add(self)

    # -- the interface --------------------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        row = self._safely(lambda connection: connection.execute(VALUE, (key, time.time())).fetchone(), None)
        if row is None:
            return None
        if self.spec.purge_lru:
            used = (time.monotonic_ns(), key)
            self._safely(lambda connection: connection.execute("update items set used = ? where key = ?", used), None)
        value: bytes = row[0]
        return value

    def exists(self, key: bytes) -> bool:
        """Whether there is such an item."""
        query = f"select 1 from items where key = ? and ({LIVE})"  # noqa: S608 - no value is in it
        return self._safely(lambda c: c.execute(query, (key, time.time())).fetchone() is not None, False)

    def put(self, key: bytes, value: bytes, seconds: float, *, replace: bool) -> bool:
        """Store a value; False if it was not stored."""

        def work(connection: sqlite3.Connection) -> bool:
            row = self._row(connection, key)
            if not replace and row is not None and not _is_expired(row):
                return False
            return self._store(connection, row, key, value, self._expires(seconds))

        return self._safely(lambda connection: self._transaction(connection, work), False)

    def change(self, key: bytes, how: Change, number: int, seconds: float) -> bool:
        """Calculate with the number."""
        if self.spec.largest_value_bytes < NUMBER_BYTES:
            return False

        def work(connection: sqlite3.Connection) -> bool:
            found = connection.execute(VALUE, (key, time.time())).fetchone()
            row = self._row(connection, key)
            expires = self._expires(seconds) if found is None or row is None else row[1]
            value = changed(found[0] if found else None, how, number, self.spec.math_initial)
            return self._store(connection, row, key, value, expires)

        return self._safely(lambda connection: self._transaction(connection, work), False)

    def delete(self, key: bytes) -> bool:
        """False if there was nothing."""

        def work(connection: sqlite3.Connection) -> bool:
            row = self._row(connection, key)
            if row is None:
                return False
            connection.execute("delete from items where key = ?", (key,))
            connection.execute(COUNT, (-1, -row[2]))
            return not _is_expired(row)

        return self._safely(lambda connection: self._transaction(connection, work), False)

    def clear(self) -> bool:
        """Delete everything that is there now, some items at a time: a core lets others run in between."""
        query = "select rowid, blocks from items where used <= ? limit ?"
        now = time.monotonic_ns()

        def work(connection: sqlite3.Connection) -> int:
            return _remove(connection, connection.execute(query, (now, SWEEP_ITEMS)).fetchall())

        while removed := self._safely(lambda connection: self._transaction(connection, work), -1):
            if removed < 0:
                return False
            let_others_run()
        return True

    def keys(self) -> list[bytes]:
        """All keys."""
        query = f"select key from items where {LIVE}"  # noqa: S608 - no value is in it
        return self._safely(lambda c: [row[0] for row in c.execute(query, (time.time(),))], [])

    def open(self) -> None:
        """Have the file open before the first call."""
        self._safely(lambda _connection: None, None)

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # -- inside a transaction -------------------------------------------------------------------------------------

    def _row(self, connection: sqlite3.Connection, key: bytes) -> Row | None:
        row: Row | None = connection.execute(ROW, (key,)).fetchone()
        return row

    def _expires(self, seconds: float) -> float:
        return 0.0 if not seconds or self.spec.no_expire else time.time() + seconds

    def _store(self, connection: sqlite3.Connection, row: Row | None, key: bytes, value: bytes, expires: float) -> bool:
        """Write the item, if there is room for it or room can be made."""
        blocks = max(1, -(-len(value) // self.spec.blocksize))
        if (row is None or blocks > row[2]) and not self._has_room(connection, row, blocks):
            self._make_room(connection, key, blocks)
            row = self._row(connection, key)
            if not self._has_room(connection, row, blocks):
                if not self.spec.ignore_full:
                    self.complaints.about(
                        "full", "it is full (%d items, %d blocks of %d bytes): give it more, or purge_lru=1",
                        self.spec.items, self.spec.blocks, self.spec.blocksize,
                    )  # fmt: skip
                return False
        used = time.monotonic_ns()
        if row is None:
            connection.execute("insert into items values (?, ?, ?, ?, ?)", (key, value, expires, blocks, used))
            connection.execute(COUNT, (1, blocks))
            return True
        connection.execute(UPDATE, (value, expires, blocks, used, row[0]))
        if blocks != row[2]:
            connection.execute(COUNT, (0, blocks - row[2]))
        return True

    def _has_room(self, connection: sqlite3.Connection, row: Row | None, blocks: int) -> bool:
        items, used = connection.execute("select items, blocks from total").fetchone()
        own_items, own_blocks = (0, 0) if row is None else (1, row[2])
        fits: bool = items - own_items < self.spec.items and used - own_blocks + blocks <= self.spec.blocks
        return fits

    def _make_room(self, connection: sqlite3.Connection, key: bytes, blocks: int) -> None:
        """Remove what has expired; else what was not used for longest, or all, where the cache is to do that."""
        while _sweep(connection):
            if self._has_room(connection, self._row(connection, key), blocks):
                return
        if self.spec.clear_on_full:
            _empty(connection)
        while self.spec.purge_lru and not self._has_room(connection, self._row(connection, key), blocks):
            oldest = "select rowid, blocks from items where key <> ? order by used limit 1"
            rows = connection.execute(oldest, (key,)).fetchall()
            if not rows:
                return
            _remove(connection, rows)

    # -- getting there --------------------------------------------------------------------------------------------

    def _transaction(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do it all or not at all, alone among the writers; and sweep, now and then."""
        now = time.monotonic()
        self._writes += 1
        if self._log_is_long or self._writes % WRITES_BETWEEN_LOOKS == 0:
            self._look_at_log(connection)
        connection.execute("begin immediate")
        if now >= self._sweep_at:
            self._sweep_at = now + self._sweep_seconds
            _sweep(connection)
        result = work(connection)
        connection.execute("commit")
        return result

    def _safely(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """The result, or `otherwise` if the store cannot be used; what keeps it is in the log."""
        patience = None
        while True:
            with self._lock:
                try:
                    if time.monotonic() < self._retry_at:
                        return otherwise
                    return work(self._connection or self._open())
                except (sqlite3.Error, OSError) as error:
                    if not _is_busy(error):
                        self._failed(error)
                        return otherwise
                finally:
                    if self._connection is not None and self._connection.in_transaction:
                        with contextlib.suppress(sqlite3.Error):
                            self._connection.execute("rollback")
            patience = patience or pauses()
            if next(patience, patience) is patience:
                self.complaints.about("busy", "another process keeps it (was it stopped?); nothing is stored")
                return otherwise

    def _look_at_log(self, connection: sqlite3.Connection) -> None:
        """Raises _LogIsLong while a reader keeps the log from being used again."""
        log = Path(f"{self.path}-wal")
        self._log_is_long = log.stat().st_size > MAX_LOG_BYTES
        if self._log_is_long:
            connection.execute("pragma wal_checkpoint(truncate)").fetchall()
            self._log_is_long = log.stat().st_size > MAX_LOG_BYTES
        if self._log_is_long:
            raise _LogIsLong("a process that reads it was stopped, and nothing can be written until it goes on or ends")

    def _failed(self, error: Exception) -> None:
        self.complaints.about(
            "failed", "%s (%s); calls answer as for an empty cache that is full", str(error) or repr(error), self.path
        )
        if isinstance(error, _LogIsLong) or _code(error) == sqlite3.SQLITE_FULL:
            return  # reading goes on
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self.close()

    def _open(self) -> sqlite3.Connection:
        if self.path is None:
            raise OSError("there is no folder to keep it in; the start of the log says why")
        _create(self.path)
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = off")
            connection.execute(f"pragma wal_autocheckpoint = {CHECKPOINT_PAGES}")
            connection.execute(f"pragma journal_size_limit = {USUAL_LOG_BYTES}")
            connection.execute("begin immediate")
            for statement in SCHEMA:
                connection.execute(statement)
            if self.spec.purge_lru:
                connection.execute(LRU_INDEX)
            connection.execute("commit")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection


def _create(path: Path) -> None:
    """Make the file, for us alone, or for the folder's owner if we are root; SQLite makes its others like it."""
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            owner = path.parent.stat()
            if owner.st_uid != os.geteuid():
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
        finally:
            os.close(descriptor)


def _is_expired(row: Row) -> bool:
    return bool(row[1]) and row[1] <= time.time()


def _sweep(connection: sqlite3.Connection) -> int:
    """Remove some of what has expired; how many."""
    query = "select rowid, blocks from items where expires > 0 and expires <= ? limit ?"
    rows = connection.execute(query, (time.time(), SWEEP_ITEMS)).fetchall()
    return _remove(connection, rows)


def _remove(connection: sqlite3.Connection, rows: list[tuple[int, int]]) -> int:
    """Remove the first of these rows, as many as go into a moment; how many."""
    until = time.monotonic() + REMOVE_SECONDS
    items = blocks = 0
    for rowid, its_blocks in rows:
        connection.execute("delete from items where rowid = ?", (rowid,))
        items += 1
        blocks += its_blocks
        if time.monotonic() > until:
            break
    if items:
        connection.execute(COUNT, (-items, -blocks))
    return items


def _empty(connection: sqlite3.Connection) -> bool:
    connection.execute("delete from items")
    connection.execute("update total set items = 0, blocks = 0")
    return True


def _code(error: Exception) -> int:
    """SQLite's primary code of an error."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_busy(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


# ---- forks ----

_stores: weakref.WeakSet[Embedded] = weakref.WeakSet()
_held: list[Embedded] = []


def _before_fork() -> None:
    for store in list(_stores):
        store._lock.acquire()
        store.close()
        _held.append(store)


def _after_fork() -> None:
    while _held:
        _held.pop()._lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
