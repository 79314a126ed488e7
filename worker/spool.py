"""The bytes of one output file between ComfyUI and S3: few in memory, many in a file that has no name."""

import io
import os
import tempfile
from typing import Any

IN_MEMORY_BYTES = 16 * 1024**2  # larger files wait on disk


class Spool:
    """Written once from its beginning, then read at any place, by any number of readers and threads."""

    def __init__(self) -> None:
        self.size = 0
        self._memory = bytearray()
        self._file: Any = None

    @classmethod
    def of(cls, data: bytes) -> "Spool":
        made = cls()
        made.write(data)
        return made

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self._file is None and self.size > IN_MEMORY_BYTES:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
            chunk, self._memory = bytes(self._memory) + chunk, bytearray()
        if self._file is None:
            self._memory += chunk
        else:
            self._file.write(chunk)
            self._file.flush()  # readers ask the system for it

    def read_at(self, offset: int, most: int) -> bytes:
        if self._file is None:
            return bytes(self._memory[offset : offset + most])
        return os.pread(self._file.fileno(), most, offset)

    def reader(self) -> io.BufferedReader:
        """A file of its own place, for what wants one."""
        return io.BufferedReader(_Reader(self), 256 * 1024)


class _Reader(io.RawIOBase):
    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = self._spool.read_at(self._at, len(buffer))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._spool.size}[whence]
        self._at = max(0, start + offset)
        return self._at
