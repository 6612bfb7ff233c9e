"""A file that forked processes can read at the same time."""

import errno
import io
import os


def open_positional(path):
    """Opens a file for reading, with a separate position in each forked process."""
    # Windows has no pread, and no fork.
    if not hasattr(os, "pread"):
        return path.open("rb")
    return io.BufferedReader(_PositionalFile(path))


class _PositionalFile(io.RawIOBase):
    """A file with a separate position in each process.

    Forked processes share the position of an ordinary file.
    """

    def __init__(self, path):
        self._file = path.open("rb", buffering=0)
        self._position = 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def readinto(self, buffer):
        content = os.pread(self._file.fileno(), len(buffer), self._position)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def seek(self, offset, whence=os.SEEK_SET):
        base = (0, self._position, os.fstat(self._file.fileno()).st_size)[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "negative position in a file")
        self._position = base + offset
        return self._position

    def tell(self):
        return self._position

    def close(self):
        self._file.close()
        super().close()
