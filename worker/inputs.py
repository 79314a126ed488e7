"""A job's input: parsed once into JobInput, its files put into ComfyUI, in a folder of the job's own."""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.aside import at_most
from worker.bucket import Bucket
from worker.comfy import Comfy
from worker.convert import AS_MADE, Wish
from worker.errors import JobError
from worker.fetch import Fetched, Fetcher
from worker.paths import name_fault, paths_fault
from worker.spool import Spool
from worker.wire import DATA_URI, FILES, MOST_REFERENCES, Source, named_files, output_fault, reference


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """Its bytes, or what stands for them (wire.REFERENCE)."""

    name: str
    data: bytes = field(default=b"", repr=False)
    ref: str = ""


@dataclass(frozen=True, kw_only=True)
class JobInput:
    """What the job asks for. bucket: the caller's own, from tobucket or s3Config."""

    workflow: dict[str, Any]
    files: tuple[InputFile, ...] = ()
    to_base64: bool = False
    temp: bool = False
    preview: bool = False
    bucket: Bucket | None = None
    wish: Wish = AS_MADE


def parse(job: Mapping[str, Any]) -> JobInput:
    """Read a job as the SDK hands it over; JobError("bad_input") says which value is wrong."""
    given = job.get("input")
    if not isinstance(given, dict):
        raise _bad('input is not an object; send {"input": {"workflow": {…}}}')
    workflow, files = _workflow(given.get("workflow")), _files(given)
    if fault := paths_fault(workflow, [file.name for file in files]):
        raise _bad(f"input.workflow: {fault}")
    if fault := output_fault(given):
        raise _bad(f"input.{fault}")
    return JobInput(
        workflow=workflow,
        files=files,
        to_base64=_flag(given, "tobase64"),
        temp=_flag(given, "temp"),
        preview=_flag(given, "preview"),
        bucket=_bucket(given, job),
        wish=Wish.of(given),
    )


async def place(
    comfy: Comfy, given: JobInput, folder: str, fetcher: Fetcher, sources: Mapping[str, Source]
) -> dict[str, Any]:
    """Fetch the job's files and upload them into its folder; the workflow with ComfyUI's names for them. `sources`:
    where Hearth says that they are. JobError("bad_input") says which file cannot be had, and why."""
    linked = await _linked(comfy, given.workflow)
    fetched = await _fetched(fetcher, given, linked, sources)

    async def upload(file: tuple[str, Spool]) -> str:
        return await comfy.upload(folder, *file)

    files = [(file.name, fetched[file.ref].body if file.ref else Spool.of(file.data)) for file in given.files]
    names = await at_most(4, upload, files)
    refs = list(dict.fromkeys(ref for _, _, ref in linked))
    uploaded = await at_most(4, upload, [(fetched[ref].name, fetched[ref].body) for ref in refs])
    placed = dict(zip(refs, uploaded, strict=True))
    workflow = _renamed(given.workflow, {name: new for (name, _), new in zip(files, names, strict=True)})
    return _with_files(workflow, {(node, name): placed[ref] for node, name, ref in linked})


async def _fetched(
    fetcher: Fetcher, given: JobInput, linked: Sequence[tuple[str, str, str]], sources: Mapping[str, Source]
) -> dict[str, Fetched]:
    """What each reference stands for, fetched once however often it is named."""
    wanted = {ref: f"node {node!r}, input {name!r} ({shown_ref(ref)})" for node, name, ref in linked}
    wanted |= {file.ref: f"input file {file.name!r} ({shown_ref(file.ref)})" for file in given.files if file.ref}
    if len(wanted) > MOST_REFERENCES:
        raise _bad(f"the input names {len(wanted)} files that are elsewhere; at most {MOST_REFERENCES} are fetched")
    found = await fetcher.fetch([(what, _source(what, ref, sources)) for ref, what in wanted.items()])
    return dict(zip(wanted, found, strict=True))


def _source(what: str, ref: str, sources: Mapping[str, Source]) -> Source:
    found = sources.get(ref)
    if found is None and (match := reference(ref)) and not match["web"]:
        raise _bad(f"{what}: Hearth has told no place of it; this worker knows https URLs alone")
    return found or Source(url=ref)


def shown_ref(ref: str) -> str:
    """For messages: without a URL's query, which may be a signature."""
    return ref.partition("?")[0][:200]


async def _linked(comfy: Comfy, workflow: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(node, input, reference): assets wherever they stand, others where ComfyUI says that the input is an uploaded
    file. What else looks like a URL is text."""
    found: list[tuple[str, str, str]] = []
    for node, about in workflow.items():
        if isinstance(about, dict) and isinstance(about.get("inputs"), dict):
            for name, value in about["inputs"].items():
                match = reference(value)
                if match and (match["asset"] or await comfy.takes_files(str(about.get("class_type")), name)):
                    found.append((node, name, value))
    return found


def _with_files(workflow: dict[str, Any], names: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    changed = {node: dict(workflow[node]["inputs"]) for node, _ in names}
    for (node, name), file in names.items():
        changed[node][name] = file
    return workflow | {node: workflow[node] | {"inputs": inputs} for node, inputs in changed.items()}


def _workflow(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise _bad(f"input.workflow is text but not JSON: {error}") from error
    if not isinstance(given, dict) or not given:
        raise _bad("input.workflow is missing or not an object; send what ComfyUI's Save (API Format) writes")
    if isinstance(given.get("nodes"), list):
        raise _bad("input.workflow is in ComfyUI's UI format; export it with Save (API Format)")
    for node, about in given.items():
        if isinstance(about, dict) and not isinstance(about.get("inputs"), dict):
            # One that no output needs is accepted by ComfyUI, and then stops its executor for good.
            raise _bad(f"input.workflow: node {node[:80]!r} has no inputs; send an object, which may be empty")
    return given


def _flag(given: Mapping[str, Any], key: str) -> bool:
    value = given.get(key)
    if value is not None and not isinstance(value, bool):
        raise _bad(f"input.{key} is {value!r:.40}; send true or false")
    return bool(value)


def _files(given: Mapping[str, Any]) -> tuple[InputFile, ...]:
    files: dict[str, InputFile] = {}
    for key in FILES:
        for name, content in _named(key, given.get(key)):
            if name in files:
                raise _bad(f"input.{key}: the name {name!r} is given twice")
            if reference(content):
                files[name] = InputFile(name=name, ref=content)
            else:
                files[name] = InputFile(name=name, data=_decoded(name, content))
    return tuple(files.values())


def _named(key: str, listed: Any) -> Iterator[tuple[str, Any]]:
    """Both shapes: a list of {"name", "data" or "image"}, or an object of name to content."""
    if not isinstance(listed or [], list | dict):
        raise _bad(f'input.{key} is not a list; send [{{"name": "a.png", "data": "<base64>"}}]')
    if isinstance(listed, list) and not all(isinstance(item, dict) for item in listed):
        raise _bad(f'input.{key} holds something that is not {{"name", "data"}}')
    for name, content in named_files(listed):
        yield _checked_name(key, name), content


def _checked_name(key: str, name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise _bad(f"input.{key}: a file has no name")
    if fault := name_fault(name):
        raise _bad(f"input.{key}: the name {name[:80]!r} {fault}")
    return name


def _decoded(name: str, content: Any) -> bytes:
    if not isinstance(content, str) or not content:
        raise _bad(f"file {name!r} has no content; send base64, a data URI or a URL")
    prefix = DATA_URI.match(content)
    if content.startswith("data:") and not prefix:
        raise _bad(f"file {name!r} is a data URI without ;base64")
    try:
        return base64.b64decode(content[prefix.end() if prefix else 0 :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _bad(f"file {name!r} is not base64: {error}") from error


def _bucket(given: Mapping[str, Any], job: Mapping[str, Any]) -> Bucket | None:
    places = (("tobucket", given), ("s3Config", given), ("s3Config", job))
    key, shape = next(((key, holder[key]) for key, holder in places if holder.get(key)), ("", None))
    if shape is None:
        return None
    if not isinstance(shape, dict):
        raise _bad(f"{key} is not an object with endpointUrl, accessId, accessSecret, bucketName")
    try:
        return Bucket.of(
            endpoint_url=shape.get("endpointUrl"),
            name=shape.get("bucketName"),
            access_id=shape.get("accessId"),
            access_secret=shape.get("accessSecret"),
        )
    except ValueError as error:
        raise _bad(f"{key}: {error}") from error


def _renamed(workflow: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The workflow with every input value that is a given file's name replaced; links are left alone.

    ComfyUI's " [folder]" after a name says where it lies; a file that came with the job lies in input."""
    folders = ("input", "temp", "output")
    known = dict(names)
    for given, name in names.items():
        known |= {f"{given} [{folder}]": f"{name} [input]" for folder in folders}

    def swap(value: Any) -> Any:
        if isinstance(value, str):
            return known.get(value, value)
        if isinstance(value, list) and not _is_link(value):
            return [swap(item) for item in value]
        if isinstance(value, dict):
            return {key: swap(item) for key, item in value.items()}
        return value

    def node(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("inputs"), dict):
            return value | {"inputs": swap(value["inputs"])}
        return value

    return {key: node(value) for key, value in workflow.items()}


def _is_link(value: list[Any]) -> bool:
    return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _bad(message: str) -> JobError:
    return JobError(message, "bad_input")
