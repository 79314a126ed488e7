"""No secret is anywhere in plain but where it is needed: in no log, though all is logged, database, page or answer.

The story (story.py) drives an instance as `make up` runs it with every secret there is; then it is looked for them.
"""

import base64
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.instance import Instance
from tests.e2e.leaks import forms, found
from tests.e2e.story import Story, new_secret
from tests.runpod import cloud as clouds
from tests.webhooks.receiver import Receiver

# Where one may be, as it is there for.
WHERE = ("logs", "the database", "tasks, sessions and the admin's log", "pages", "answers", "webhooks")


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    folder = Path(tempfile.mkdtemp(prefix="hearth-secrets-"))
    cloud = clouds.Cloud()
    there = cloud.endpoints["there"] = clouds.There()
    with pytest.MonkeyPatch.context() as patch, Receiver() as receiver:
        patch.setattr(clouds, "KEY", f"rpa_{new_secret()}")
        debug = {"HEARTH_LOG_LEVEL": "DEBUG", "RUNPOD_DEBUG_LEVEL": "DEBUG"}
        known = {"HEARTH_URL_ALLOW": "127.0.0.0/8", "HEARTH_RUNPOD_URL": cloud.url}
        up = Instance(folder / "home", **debug, **known)
        try:
            told = Story(up, known, there, receiver, clouds.KEY)
            told.tell()
            yield told
        finally:
            up.signal(signal.SIGTERM)
            cloud.close()
            shutil.rmtree(folder, ignore_errors=True)


SIGNED = {f"the signature of {name}'s URL 0": {"pages", "answers", "webhooks"} for name in ("own", "usual")}
NEEDED = SIGNED | {
    "a session": {"the database"},  # Django keeps its key as it is
    "a webhook URL's token": {"the database"},
    "a picture in base64": {"the database", "pages"},  # it is a job's input, and small: a large one is moved to S3
}
"""Where else one may be, since it is needed there."""


@pytest.mark.parametrize("where", WHERE)
def test_no_secret_is_there(story: Story, where: str) -> None:
    assert len(story.texts[where]) > 200
    needed = {name for name, places in NEEDED.items() if where in places}
    assert set(found(story.secrets, story.texts[where])) <= needed


def test_no_log_has_a_signed_url_or_a_key(story: Story) -> None:
    assert not re.findall(r"X-Amz-Signature=\w+|\bhth_[0-9a-f]{12}_\w+|\bhwk_[0-9a-f]{12}_\w+", story.texts["logs"])


def test_the_story_was_told_to_its_end(story: Story) -> None:
    ends = {"own": "COMPLETED", "usual": "COMPLETED", "wrong": "FAILED", "by hand": "FAILED", "by RunPod": "FAILED"}
    assert story.ends == ends
    assert len(story.secrets) > 25
    assert story.pages > 80
    assert "DEBUG" in story.texts["logs"]
    assert "webhook-signature" in story.texts["webhooks"]


@pytest.mark.parametrize("secret", ["s/5e6a+&77=b", "x" * 43 + "=", "<&>'\"/+" * 3])
def test_one_that_is_written_down_in_any_form_is_found(secret: str) -> None:
    for text in (*forms(secret), *(f"{'.' * n}{secret}..." for n in range(3))):
        assert found({"it": secret}, f"before {text} after") == ["it"]
    for before in (b"", b"a", b"ab"):
        assert found({"it": secret}, base64.b64encode(before + secret.encode() + b" and more").decode()) == ["it"]
    assert found({"it": secret}, "nothing of the kind") == []
