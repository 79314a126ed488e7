import json
import stat
from pathlib import Path

import pytest

from hearth.local.home import SOCKET_PATH_BYTES, Home, LocalError, Lock


@pytest.mark.parametrize("path", ["/tmp/a folder/var", "/tmp/a,b", "/tmp/a\tb"])
def test_a_path_that_the_parts_cannot_live_in_is_refused_by_name(path: str) -> None:
    with pytest.raises(LocalError, match="Set HEARTH_HOME to another folder") as refused:
        Home(Path(path))
    assert repr(path) in str(refused.value)


def test_a_secret_stays_the_same_and_is_the_owners(home_path: Path) -> None:
    made = Home(home_path).secret("KEY")
    assert Home(home_path).secret("KEY") == made
    assert Home(home_path).secret("OTHER") != made
    assert stat.S_IMODE((home_path / "secrets" / "KEY").stat().st_mode) == 0o600
    assert stat.S_IMODE((home_path / "secrets").stat().st_mode) == 0o700


def test_a_written_file_is_whole_and_the_owners(home_path: Path) -> None:
    home = Home(home_path)
    home.write_run({"base_url": "one"})
    home.write_run({"base_url": "two"})
    assert home.run() == {"base_url": "two"}
    assert stat.S_IMODE((home_path / "run.json").stat().st_mode) == 0o600
    assert [file.name for file in home_path.iterdir()] == ["run.json"]


def test_without_a_run_json_nothing_is_known(home_path: Path) -> None:
    assert Home(home_path).run() == {}
    assert Home(home_path).s3() == {}


def test_sockets_lie_in_the_home_unless_its_path_is_too_long() -> None:
    assert Home(Path("/srv/hearth")).sockets() == Path("/srv/hearth/sockets")
    long, other = Path("/srv") / ("x" * 100), Path("/srv") / ("y" * 100)
    assert len(str(Home(long).sockets() / ".s.PGSQL.5432")) <= SOCKET_PATH_BYTES
    assert Home(long).sockets() != Home(other).sockets()


def test_one_process_holds_the_lock_and_the_other_learns_which(home_path: Path) -> None:
    home = Home(home_path)
    first, second = Lock(home), Lock(home)
    assert first.take("up")
    assert not second.take("manage.py migrate")
    assert second.holder() == (json.loads((home_path / "lock").read_text())["pid"], "up")
    first.release()
    assert second.take("manage.py migrate")
    second.release()
