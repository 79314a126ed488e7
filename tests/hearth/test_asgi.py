"""The web process as a process."""

import resource
import subprocess
import sys

ASKS = "import resource, hearth.asgi as web; web.open_many_files(); print(*resource.getrlimit(resource.RLIMIT_NOFILE))"


def test_web_opens_as_many_files_as_it_is_allowed() -> None:
    def few_at_first() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))

    done = subprocess.run([sys.executable, "-c", ASKS], preexec_fn=few_at_first, capture_output=True, text=True)
    assert done.stdout.split() == ["4096", "4096"], done.stderr
