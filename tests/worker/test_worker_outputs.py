"""History entries taken apart: nothing is silently dropped."""

from typing import Any

from worker.files import OutputFile
from worker.outputs import collect
from worker.rejected import failure, rejected

WORKFLOW: dict[str, Any] = {"9": {"class_type": "SaveImage"}, "4": {"class_type": "X"}}


def image(name: str, type: str = "output") -> dict[str, str]:
    return {"filename": name, "subfolder": "s", "type": type}


def taken(outputs: dict[str, Any], temp: bool = False) -> tuple[list[str], Any]:
    files, datas = collect({"outputs": outputs}, WORKFLOW, temp=temp)
    return [f"{file.node}:{file.filename}" for file in files], datas


def test_files_come_in_the_workflows_order() -> None:
    outputs = {"4": {"images": [image("b")]}, "1.2": {"images": [image("c")]}, "9": {"audio": [image("a")]}}
    assert taken(outputs) == (["9:a", "4:b", "1.2:c"], {})


def test_what_is_no_file_becomes_data_as_it_is() -> None:
    values = {"text": ["a", "b"], "animated": [True], "n": 3, "none": None, "empty": [], "odd": [{"filename": 3}]}
    assert taken({"4": values}) == ([], {"4": values})


def test_a_mixed_list_is_split() -> None:
    assert taken({"4": {"images": [image("a"), "caption", image("b")]}}) == (
        ["4:a", "4:b"],
        {"4": {"images": ["caption"]}},
    )


def test_a_file_that_stands_alone_is_found() -> None:
    assert taken({"4": {"video": image("a")}}) == (["4:a"], {})


def test_previews_are_left_out_unless_wanted() -> None:
    outputs = {"4": {"images": [image("a", "temp"), image("b")]}}
    assert taken(outputs) == (["4:b"], {})
    assert taken(outputs, temp=True) == (["4:a", "4:b"], {})


def test_kinds_follow_the_comfy_api() -> None:
    names = ["a.PNG", "a.mp4", "a.flac", "a.txt", "a.latent", "a.safetensors", "noextension"]
    kinds = [OutputFile(node="1", name=name).kind for name in names]
    assert kinds == ["image", "video", "audio", "text", "latent", "file", "file"]


def test_a_rejection_without_json_keeps_the_text() -> None:
    assert "HTTP 502 bad gateway" in str(rejected(502, "bad gateway", WORKFLOW))


def test_a_rejection_without_nodes_keeps_type_and_details() -> None:
    body = '{"error": {"message": "Prompt has no outputs", "details": "d-etails"}, "node_errors": {}}'
    error = rejected(400, body, WORKFLOW)
    assert "Prompt has no outputs d-etails." in str(error)
    assert error.nodes is None or error.nodes == {}


def test_an_error_entry_without_messages_still_fails() -> None:
    error = failure({"status": {"status_str": "error", "messages": []}}, WORKFLOW)
    assert error
    assert error.code == "node_failed"


def test_running_out_of_gpu_memory_gets_advice_of_its_own() -> None:
    said = {"node_id": "9", "exception_type": "torch.OutOfMemoryError", "exception_message": "CUDA out of memory"}
    error = failure({"status": {"status_str": "error", "messages": [["execution_error", said]]}}, WORKFLOW)
    assert "make the images or the batch smaller" in str(error)


def test_an_old_entry_without_status_is_a_success() -> None:
    assert failure({"outputs": {}}, WORKFLOW) is None
