"""What a job may carry, and what is refused before ComfyUI hears of it."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from tests.worker.fakes import FakeComfy, handled, image_workflow, load_workflow
from worker.errors import JobError
from worker.inputs import InputFile, JobInput, parse

WORKFLOW = image_workflow()
BUCKET = {"endpointUrl": "https://s3.eu-west-1.amazonaws.com", "accessId": "AK", "accessSecret": "sesame"}


def parsed(**input: Any) -> JobInput:
    return parse({"id": "1", "input": {"workflow": WORKFLOW, **input}})


def refusal(**input: Any) -> str:
    with pytest.raises(JobError) as caught:
        parsed(**input)
    assert caught.value.code == "bad_input"
    return str(caught.value)


@pytest.mark.parametrize("input", [None, "text", [], 3])
def test_an_input_that_is_no_object_is_refused(input: Any) -> None:
    with pytest.raises(JobError, match="input is not an object"):
        parse({"id": "1", "input": input})


@pytest.mark.parametrize("workflow", [None, {}, [], 3, "", "[]", "null"])
def test_a_missing_workflow_is_refused(workflow: Any) -> None:
    assert "input.workflow is" in refusal(workflow=workflow)


def test_text_that_is_no_json_is_told_with_its_place() -> None:
    assert "line 1 column 2" in refusal(workflow="{oops}")


def test_a_workflow_in_ui_format_is_told_how_to_export() -> None:
    assert "Save (API Format)" in refusal(workflow={"nodes": [], "links": []})


def test_json_text_is_as_good_as_an_object() -> None:
    assert parsed(workflow=json.dumps(WORKFLOW)) == parsed()


@pytest.mark.parametrize("key", ["files", "images"])
@pytest.mark.parametrize("content", ["data", "image"])
def test_files_and_images_take_both_content_keys(key: str, content: str) -> None:
    assert parsed(**{key: [{"name": "a.png", content: "YWI="}]}).files == (InputFile(name="a.png", data=b"ab"),)


def test_files_may_be_an_object_of_names() -> None:
    files = parsed(files={"a": "YQ=="}, images={"b": "data:image/png;base64,Yg=="}).files
    assert [(file.name, file.data) for file in files] == [("a", b"a"), ("b", b"b")]


@for_all(st.binary(min_size=1))
def test_what_is_sent_as_base64_arrives_as_it_was(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    assert parsed(files={"a": text, "b": f"data:x/y;charset=z;base64,{text}"}).files[1].data == data


@pytest.mark.parametrize("content", ["a b=", "YQ", "YQ==\n", "*", "data:image/png,YQ==", "ä", "", None, 3, {"x": 1}])
def test_what_is_not_base64_is_refused_with_the_files_name(content: Any) -> None:
    assert "'pic.png'" in refusal(files=[{"name": "pic.png", "data": content}])


@pytest.mark.parametrize(
    "name",
    ["", None, 5, "/etc/x", "../x", "a/../x", "a//x", "./x", "a/", "a\\b", "a\0b", "C:x", "x" * 256, "a\nb", "\ud800"],
)
def test_a_name_that_is_no_plain_path_is_refused(name: Any) -> None:
    assert "name" in refusal(files=[{"name": name, "data": "YQ=="}])


@for_all(st.text(min_size=1, max_size=60))
def test_no_name_that_is_taken_can_leave_its_folder(name: str) -> None:
    try:
        files = parsed(files={name: "YQ=="}).files
    except JobError:
        return
    assert not name.startswith("/")
    assert ".." not in files[0].name.split("/")
    assert "\0" not in name
    assert "\\" not in name


@pytest.mark.parametrize("files", ["a.png", 3, [1], [["a", "b"]]])
def test_a_list_of_something_else_is_refused_with_an_example(files: Any) -> None:
    assert "input.files" in refusal(files=files)


def test_a_name_given_twice_is_refused() -> None:
    assert "twice" in refusal(files={"a": "YQ=="}, images={"a": "Yg=="})


@pytest.mark.parametrize("key", ["tobase64", "temp"])
def test_flags_are_true_false_or_absent(key: str) -> None:
    assert f"input.{key}" in refusal(**{key: "false"})
    assert parsed(**{key: None}) == parsed(**{key: False}) == parsed()


def test_tobucket_goes_before_s3config_of_input_and_job() -> None:
    def name(job: dict[str, Any]) -> str:
        bucket = parse(job).bucket
        assert bucket
        return bucket.place.bucket

    job: dict[str, Any] = {"id": "1", "input": {"workflow": WORKFLOW}, "s3Config": BUCKET | {"bucketName": "third"}}
    assert name(job) == "third"
    job["input"]["s3Config"] = BUCKET | {"bucketName": "second"}
    assert name(job) == "second"
    job["input"]["tobucket"] = BUCKET | {"bucketName": "first"}
    assert name(job) == "first"


@pytest.mark.parametrize("empty", [None, {}, False, ""])
def test_an_empty_bucket_is_none(empty: Any) -> None:
    assert parsed(tobucket=empty).bucket is None


@pytest.mark.parametrize("missing", ["endpointUrl", "accessId", "accessSecret", "bucketName"])
def test_an_incomplete_bucket_is_refused_by_the_missing_key(missing: str) -> None:
    shape = {**BUCKET, "bucketName": "b"}
    del shape[missing]
    assert f"tobucket: {missing} is missing" in refusal(tobucket=shape)


def test_neither_secret_nor_content_shows_when_an_input_is_printed() -> None:
    shown = repr(parsed(tobucket=BUCKET | {"bucketName": "b"}, files={"a": "c2VjcmV0"}))
    assert "sesame" not in shown
    assert "secret" not in shown.replace("access_secret", "")


async def test_names_are_replaced_everywhere_but_in_links() -> None:
    workflow = load_workflow("a.png")
    workflow["1"]["inputs"] |= {"again": "a.png [input]", "many": ["a.png", {"x": "a.png"}], "other": "a.png.bak"}
    workflow["a.png"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    workflow["3"] = {"class_type": "PreviewImage", "inputs": {"images": ["a.png", 0]}}
    async with FakeComfy(lambda comfy, prompt_id: comfy.finish(prompt_id)) as comfy:
        await handled(comfy.url, {"id": "1", "input": {"workflow": workflow, "files": {"a.png": "YQ=="}}})
    sent, [new] = comfy.prompts[0]["prompt"], comfy.uploads
    expected = {"image": new, "again": f"{new} [input]", "many": [new, {"x": new}], "other": "a.png.bak"}
    assert sent["1"]["inputs"] == expected
    assert sent["3"]["inputs"]["images"] == ["a.png", 0]
    assert new.endswith("/a.png")
    assert len(new) > 40
