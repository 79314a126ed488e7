"""Parameters proposed from a graph: what people usually want to set of it, typed, with ComfyUI's bounds and choices
where the node catalogue tells them. Each is one that `define` takes."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from jobs.graph.classes import Catalogue, Input
from jobs.wire.references import LOADERS
from jobs.workflows.definition import LONGEST_CHOICE, LONGEST_TITLE, MOST_CHOICES, MOST_PARAMETERS, settled
from jobs.workflows.faults import Unfit
from jobs.workflows.parameters import Parameter, Type

Graph = Mapping[str, Mapping[str, Any]]
TEXT_ENCODE = "TextEncode"  # CLIPTextEncode, CLIPTextEncodeFlux, TextEncodeQwenImageEdit, …
TEXTS = ("text", "prompt", "text_g", "text_l", "clip_g", "clip_l", "t5xxl")
SIDES = {"positive": "prompt", "negative": "negative_prompt"}
PRIMITIVE, VALUE = "Primitive", "value"
UPSTREAM_MOST = 200  # nodes looked through above a sampler's `positive`


@dataclass(frozen=True, kw_only=True)
class Usual:
    """An input that means the same wherever it is. sized: only of a node that makes an empty picture or latent."""

    type: Type
    bounds: tuple[float | None, float | None] = (None, None)
    sized: bool = False


USUAL = {  # in the order they are proposed in; the bounds are those of ComfyUI's own nodes
    "width": Usual(type=Type.INTEGER, bounds=(1, 16384), sized=True),
    "height": Usual(type=Type.INTEGER, bounds=(1, 16384), sized=True),
    "length": Usual(type=Type.INTEGER, bounds=(1, 16384), sized=True),
    "batch_size": Usual(type=Type.INTEGER, bounds=(1, 4096), sized=True),
    "steps": Usual(type=Type.INTEGER, bounds=(1, 10000)),
    "cfg": Usual(type=Type.NUMBER, bounds=(0, 100)),
    "guidance": Usual(type=Type.NUMBER, bounds=(0, 100)),
    "sampler_name": Usual(type=Type.CHOICE),
    "scheduler": Usual(type=Type.CHOICE),
    "denoise": Usual(type=Type.NUMBER, bounds=(0, 1)),
    "seed": Usual(type=Type.SEED),
    "noise_seed": Usual(type=Type.SEED),
}


def propose(graph: Graph, catalogues: Sequence[Catalogue] = ()) -> list[Parameter]:
    """`graph`: one that `read_graph` took."""
    places, found = set[tuple[str, str]](), dict[str, Parameter]()
    for node, name, wish, parameter in _wishes(graph, catalogues):
        path = f"{node}.inputs.{name}"
        made = _fitting(graph, replace(parameter, paths=(path,), title=_title(graph, node)))
        if made and (node, name) not in places and len(found) < MOST_PARAMETERS:
            places.add((node, name))
            free = _free(wish, found)
            found[free] = replace(made, name=free)
    return list(found.values())


def _fitting(graph: Graph, parameter: Parameter) -> Parameter | None:
    """As it is wished; else without bounds and choices that what stands in the graph breaks. None: it cannot be."""
    loose = Type.STRING if parameter.type == Type.CHOICE else parameter.type
    for one in (parameter, replace(parameter, type=loose, min=None, max=None, choices=())):
        with suppress(Unfit):
            return settled(one, graph)
    return None


def _free(wish: str, taken: Collection[str]) -> str:
    """A name like this that no other parameter has."""
    name = re.sub(r"[^a-z0-9]+", "_", wish.lower()).strip("_")[:40] or VALUE
    name = f"_{name}" if name[0].isdigit() else name
    numbered = (f"{name}_{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(each for each in numbered if each not in taken)


Wish = tuple[str, str, str, Parameter]  # node, input, name, and the rest of it


def _wishes(graph: Graph, catalogues: Sequence[Catalogue]) -> Iterator[Wish]:
    yield from _texts(graph)
    yield from _files(graph, catalogues)
    for name, usual in USUAL.items():
        for node, about in graph.items():
            if name in about["inputs"] and (not usual.sized or _makes_empty(about)):
                wish = "seed" if usual.type == Type.SEED else name
                yield node, name, wish, _usual(usual, _declared(catalogues, about["class_type"], name))
    for node, about in graph.items():
        kind = TYPES.get(type(about["inputs"].get(VALUE)))
        if kind and about["class_type"].startswith(PRIMITIVE):
            yield node, VALUE, _title(graph, node) or VALUE, _plain(kind)


TYPES: dict[type, Type] = {str: Type.STRING, bool: Type.BOOLEAN, int: Type.INTEGER, float: Type.NUMBER}


def _plain(type: Type, **more: Any) -> Parameter:
    return Parameter(name="p", type=type, paths=(), **more)


def _makes_empty(about: Mapping[str, Any]) -> bool:
    return "batch_size" in about["inputs"] or about["class_type"].startswith("Empty")


def _usual(usual: Usual, declared: Input | None) -> Parameter:
    if usual.type == Type.CHOICE:
        choices = declared.choices.listed if declared and declared.choices else ()
        texts = tuple(text for text in choices if isinstance(text, str) and len(text) <= LONGEST_CHOICE)[:MOST_CHOICES]
        return _plain(Type.CHOICE, choices=texts) if texts else _plain(Type.STRING)
    if usual.type == Type.SEED:
        return _plain(Type.SEED)
    low, high = usual.bounds
    if declared:
        low, high = low if declared.low is None else declared.low, high if declared.high is None else declared.high
    if usual.type == Type.INTEGER:
        low, high = (None if bound is None else int(bound) for bound in (low, high))
    return _plain(usual.type, min=low, max=high)


def _declared(catalogues: Sequence[Catalogue], node_class: str, name: str) -> Input | None:
    known = (catalogue.classes.get(node_class) for catalogue in catalogues)
    return next((found.inputs[name] for found in known if found and name in found.inputs), None)


def _files(graph: Graph, catalogues: Sequence[Catalogue]) -> Iterator[Wish]:
    for node, about in graph.items():
        for name in about["inputs"]:
            declared = _declared(catalogues, about["class_type"], name)
            if f"{about['class_type']}.{name}" in LOADERS or (declared and declared.file):
                yield node, name, name, _plain(Type.FILE)


def _texts(graph: Graph) -> Iterator[Wish]:
    """What text encoders encode; by whether samplers take it as positive or negative, else by its title."""
    side = {node: name for given, name in reversed(SIDES.items()) for node in _above(graph, given)}
    rank = {name: number for number, name in enumerate(SIDES.values())}
    encoders = [node for node, about in graph.items() if TEXT_ENCODE in about["class_type"]]
    for node in sorted(encoders, key=lambda node: rank.get(side.get(node, ""), len(rank))):
        inputs = graph[node]["inputs"]
        texts = [name for name in TEXTS if name in inputs]
        for name in texts:
            base = side.get(node) or _title(graph, node) or "text"
            wish = base if len(texts) == 1 else f"{base}_{name}"
            yield *_source(graph, node, name), wish, _plain(Type.STRING)


def _source(graph: Graph, node: str, name: str) -> tuple[str, str]:
    """Where the text is: in this input, or in the one text of the node that it links to."""
    value = graph[node]["inputs"][name]
    above = graph.get(value[0]) if isinstance(value, list) and value and isinstance(value[0], str) else None
    texts = [name for name, inner in above["inputs"].items() if isinstance(inner, str)] if above else []
    return (value[0], texts[0]) if len(texts) == 1 else (node, name)


def _above(graph: Graph, given: str) -> Collection[str]:
    """Text encoders above inputs of this name, by way of what lies between, as conditioning nodes."""
    waiting = [about["inputs"][given] for about in graph.values() if given in about["inputs"]]
    seen: dict[str, None] = {}
    while waiting and len(seen) < UPSTREAM_MOST:
        link = waiting.pop()
        node = link[0] if isinstance(link, list) and link and isinstance(link[0], str) else None
        if node is None or node in seen or node not in graph:
            continue
        seen[node] = None
        if TEXT_ENCODE not in graph[node]["class_type"]:
            inputs = graph[node]["inputs"]
            waiting += [inputs[given]] if given in inputs else list(inputs.values())
    return [node for node in seen if TEXT_ENCODE in graph[node]["class_type"]]


def _title(graph: Graph, node: str) -> str:
    meta = graph[node].get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    return title[:LONGEST_TITLE] if isinstance(title, str) else ""
