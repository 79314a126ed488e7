"""HEARTH_HOME: what an embedded instance keeps on disk, and what it says of itself in run.json."""

import base64
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

DEFAULT = Path(__file__).resolve().parents[2] / "var"
SOCKET_PATH_BYTES = 100  # Linux allows 107 and macOS 103


class LocalError(Exception):
    """What keeps an embedded instance or a part of it from running, said to a person."""

    exit_code = 1


class Home:
    """A folder with the embedded parts' data, the generated keys, run.json and admin.json."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        if any(letter.isspace() or letter == "," for letter in str(self.path)):
            raise LocalError(
                f"HEARTH_HOME is {str(self.path)!r}, and its parts cannot live in a folder with a space or a comma "
                "in its path. Set HEARTH_HOME to another folder."
            )

    @classmethod
    def from_environment(cls) -> "Home":
        """The home that HEARTH_HOME names, else var/ in the repository. Read here, since it comes before settings."""
        return cls(Path(os.environ.get("HEARTH_HOME") or DEFAULT))

    def file(self, name: str) -> Path:
        return self.path / name

    def folder(self, name: str) -> Path:
        """The folder of that name, made on first use and closed to others."""
        self.path.mkdir(parents=True, exist_ok=True)
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def write(self, name: str, text: str) -> None:
        """Replaces that file at once, mode 0600: a reader sees the old text or the new."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.file(f".{name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(text)
        draft.replace(self.file(name))

    def read(self, name: str) -> dict[str, Any]:
        """The JSON object in that file, or {} if there is none."""
        try:
            found: dict[str, Any] = json.loads(self.file(name).read_text())
            return found
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def run(self) -> dict[str, Any]:
        """run.json, which the supervisor writes: {"pid", "started", "base_url", "database_url", "s3": {…},
        "parts": {name: {"pid", "port", "started"}}}. After a stop there is no pid, no database_url and no part."""
        return self.read("run.json")

    def write_run(self, said: dict[str, Any]) -> None:
        self.write("run.json", json.dumps(said, indent=2))

    def sockets(self) -> Path:
        """The folder of the parts' Unix sockets, whose paths must be short."""
        inside = self.path / "sockets"
        if len(os.fsencode(inside / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES:
            return inside
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"hearth-{name}"

    def clear_sockets(self) -> None:
        """Removes that folder, once all parts have ended."""
        shutil.rmtree(self.sockets(), ignore_errors=True)

    def database_url(self) -> str:
        """The embedded PostgreSQL's URL. Nothing listens there until a supervisor or manage.py has started it."""
        return f"postgres://postgres@/hearth?host={quote(str(self.sockets()))}"

    def s3(self) -> dict[str, str]:
        """endpoint_url, access_key_id, secret_access_key of the embedded S3."""
        return dict(self.run().get("s3") or {})

    def secret(self, name: str) -> str:
        """The generated secret of that name; the first caller makes it. A Fernet key, which suits every use."""
        file = self.folder("secrets") / name
        made = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        draft = file.with_suffix(f".{os.getpid()}.{secrets.token_hex(4)}")
        if not file.exists():
            draft.touch(0o600)
            draft.write_text(made)
            try:
                os.link(draft, file)  # atomic: of two first callers one wins, and both read the winner's
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return file.read_text()


class Lock:
    """Held by the one process that runs a home's embedded parts. The kernel drops it with the process."""

    def __init__(self, home: Home) -> None:
        home.path.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(home.file("lock"), os.O_RDWR | os.O_CREAT, 0o600)

    def take(self, what: str) -> bool:
        """Whether it is ours now. what: "up" (an instance), "stopping" (one that ends), or a manage.py command."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({"pid": os.getpid(), "what": what}).encode(), 0)
        return True

    def holder(self) -> tuple[int, str]:
        """Pid of the process that holds it, and what it does; (0, "") in the moment before it has said so."""
        try:
            said = json.loads(os.pread(self._fd, 1000, 0))
            return said["pid"], said["what"]
        except json.JSONDecodeError:
            return 0, ""

    def release(self) -> None:
        os.close(self._fd)
