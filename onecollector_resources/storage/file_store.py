"""Objects as files in a folder of one machine.

An object appears by a rename, after its bytes are on disk: a reader, or a machine that lost power, sees the old one or
the new one. Conditions hold between all processes that use the folder, by a lock that is held for the rename only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NoReturn

from onecollector_resources.storage.objects import (
    ObjectInfo,
    ObjectKeyError,
    ObjectMissing,
    PutConflict,
    StoreDenied,
    StoreError,
    StoreFull,
    StoreGone,
    checked_key,
)

OURS = ".oc-"
"""Names of files that are no objects: the lock, and objects that are not whole yet."""

LOCK = f"{OURS}lock"

TRIES = 10
"""A folder may go between its making and its use, when another process deletes the last object in it."""

COPY_BYTES = 1 << 20


class FileStore:
    """Objects under ``root``. Raises StoreGone where the folder is not there and ``create`` is not set."""

    def __init__(self, root: Path, *, create: bool = False) -> None:
        if create:
            try:
                root.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                _refused(error, f"{root}: cannot be made")
        self.root = root.resolve()
        if not self.root.is_dir():
            self._gone()

    @property
    def url(self) -> str:
        return self.root.as_uri()

    def __repr__(self) -> str:
        return f"FileStore({str(self.root)!r})"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with ``prefix``, by key."""
        if not self.root.is_dir():
            self._gone()
        folder = prefix.rpartition("/")[0]
        if folder:
            checked_key(folder)
        yield from self._walk(self.root / folder, f"{folder}/" if folder else "", prefix)

    def _walk(self, folder: Path, before: str, prefix: str) -> Iterator[ObjectInfo]:
        try:
            with os.scandir(folder) as scanned:
                entries = [(entry, entry.is_dir(follow_symlinks=False)) for entry in scanned]
        except (FileNotFoundError, NotADirectoryError):
            # It went after its parent was read, or the prefix names nothing.
            return
        except OSError as error:
            _refused(error, f"{self.url}: {before or 'its root'} cannot be listed")
        # A folder's objects stand where its name with the slash stands: "a-b" is before "a/b".
        entries.sort(key=lambda pair: os.fsencode(pair[0].name) + (b"/" if pair[1] else b""))
        for entry, is_folder in entries:
            key = before + entry.name
            if entry.name.startswith(OURS):
                continue
            if is_folder:
                inner = f"{key}/"
                if inner.startswith(prefix) or prefix.startswith(inner):
                    yield from self._walk(Path(entry.path), inner, prefix)
            elif key.startswith(prefix) and entry.is_file(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    yield _info(key, entry.stat(follow_symlinks=False))

    def head(self, key: str) -> ObjectInfo:
        """Raises ObjectMissing."""
        with self._opened(key) as file:
            return _info(key, os.fstat(file.fileno()))

    def get(self, key: str) -> bytes:
        """Raises ObjectMissing."""
        with self._opened(key) as file:
            return file.read()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Raises ObjectMissing."""
        with self._opened(key) as file:
            file.seek(start)
            return file.read(length)

    def get_file(self, key: str, path: Path) -> None:
        """Raises ObjectMissing, OSError."""
        beside = path.with_name(f"{OURS}{secrets.token_hex(8)}")
        try:
            with self._opened(key) as file, beside.open("xb") as out:
                shutil.copyfileobj(file, out, COPY_BYTES)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def put(self, key: str, data: bytes, *, only_if_absent: bool = False, only_if_match: str | None = None) -> str:
        """Raises PutConflict, StoreDenied, StoreGone, StoreFull."""

        def write(out: BinaryIO) -> None:
            out.write(data)

        return self._place(key, write, only_if_absent, only_if_match)

    def put_file(self, key: str, path: Path) -> str:
        """Raises as ``put``; OSError for the file that is read."""
        with path.open("rb") as source:
            return self._place(key, lambda out: shutil.copyfileobj(source, out, COPY_BYTES), False, None)

    def delete(self, key: str) -> None:
        """Removes folders that are left empty, too."""
        path = self._path(key)
        try:
            with self._locked():
                path.unlink()
                self._prune(path.parent)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if not self.root.is_dir():
                self._gone()
        except OSError as error:
            _refused(error, f"{self.url}: {key} cannot be deleted")

    def _prune(self, folder: Path) -> None:
        """An empty folder would keep an object from its name."""
        with suppress(OSError):
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent

    def sweep(self, before: datetime) -> int:
        """Remove files of killed writers that were last written before then; answers how many."""
        removed = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                if not name.startswith(OURS) or name == LOCK:
                    continue
                with suppress(FileNotFoundError):
                    if path.lstat().st_mtime < before.timestamp():
                        path.unlink()
                        removed += 1
        return removed

    def _path(self, key: str) -> Path:
        """Where the object is or would be. Raises ObjectKeyError where a link leads out of the root."""
        path = self.root / checked_key(key)
        if any(part.startswith(OURS) for part in key.split("/")):
            raise ObjectKeyError(f"{key!r} is no key: names that begin with {OURS} are the store's own")
        if not path.parent.resolve().is_relative_to(self.root):
            raise ObjectKeyError(f"{key!r} leaves {self.root}: a folder of it is a link; remove the link")
        return path

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        try:
            file = os.fdopen(os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if not self.root.is_dir():
                self._gone()
            raise ObjectMissing(f"{self.url}: expected the object {key}, found none") from None
        except OSError as error:
            _refused(error, f"{self.url}: {key} cannot be read")
        with file:
            yield file

    def _place(self, key: str, write: Callable[[BinaryIO], object], absent: bool, match: str | None) -> str:
        path = self._path(key)
        try:
            beside = self._beside(path)
            try:
                with beside.open("wb") as out:
                    write(out)
                    out.flush()
                    os.fsync(out.fileno())
                    etag = _etag(os.fstat(out.fileno()))
                with self._locked():
                    self._keep_condition(key, path, absent, match)
                    beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
            _sync_folder(path.parent)
        except OSError as error:
            _refused(error, f"{self.url}: {key} cannot be written")
        return etag

    def _beside(self, path: Path) -> Path:
        """An empty file in the object's folder, which is made. Raises OSError."""
        beside = path.parent / f"{OURS}{secrets.token_hex(8)}"
        for left in range(TRIES, 0, -1):
            if not self.root.is_dir():
                self._gone()
            self._make(path.parent)
            try:
                beside.open("xb").close()
            except FileNotFoundError:
                if left == 1:
                    raise
            else:
                break
        return beside

    def _make(self, folder: Path) -> None:
        if folder == self.root or folder.is_dir():
            return
        self._make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "an object has the name of this folder", str(folder))
        _sync_folder(folder.parent)

    def _keep_condition(self, key: str, path: Path, absent: bool, match: str | None) -> None:
        if not absent and match is None:
            return
        try:
            found = _etag(path.lstat())
        except FileNotFoundError:
            found = None
        if absent and found is not None:
            raise PutConflict(f"{self.url}: {key}: expected no object, found one ({found}); read it and decide anew")
        if match is not None and found != match:
            raise PutConflict(
                f"{self.url}: {key}: expected version {match}, found {found or 'no object'}; read it and decide anew"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A descriptor of its own for each holder: threads that share one would not exclude each other.
        handle = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _gone(self) -> NoReturn:
        raise StoreGone(f"{self.root}: expected the store's folder, found none; is its file system mounted?")


def _etag(stat: os.stat_result) -> str:
    """A rename brings a new inode: two versions differ in it or, where it is used again, in time."""
    return f"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"


def _info(key: str, stat: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC), _etag(stat))


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refused(error: OSError, what: str) -> NoReturn:
    said = error.strerror or str(error)
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            raise StoreFull(f"{what}: {said}; nothing was written; make room and run it again") from error
        case errno.EACCES | errno.EPERM | errno.EROFS:
            raise StoreDenied(f"{what}: {said}; give this user the right, or name another folder") from error
        case errno.ENAMETOOLONG | errno.ENOTDIR | errno.EISDIR | errno.ELOOP | errno.EILSEQ:
            raise ObjectKeyError(f"{what}: {said}; a key on disk cannot be both an object and a folder") from error
        case errno.ENOENT | errno.EIO | errno.ESTALE | errno.ENODEV | errno.ENXIO | errno.ENOTCONN:
            raise StoreGone(f"{what}: {said}; is its file system there and well?") from error
        case _:
            raise StoreError(f"{what}: {said}") from error
