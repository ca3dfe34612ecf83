"""Find what a ``$ref`` leads to: by JSON Pointer, by ``$anchor`` and by ``$id``."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

# Keywords whose values are data, in which an "$id" identifies nothing.
_DATA = ("const", "enum", "default", "examples")


class References:
    """The places of a schema by what refers to them; a place is ``#`` or ``#/…``."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._places: dict[str, str] = {}
        # The base URI in which the references of a subschema are resolved, where it changes.
        self._bases: dict[str, str] = {"#": ""}
        self._collect(schema, "#", "")

    def target(self, reference: str, place: str) -> str | None:
        """Return the place that a reference at this place leads to; None if it is unknown."""
        base = self._base(place)
        uri, fragment = urldefrag(_join(base, reference) if reference else base)
        root = "#" if uri == "" else self._places.get(uri)
        if fragment and not fragment.startswith("/"):
            return self._places.get(f"{uri}#{fragment}")
        if root is None:
            return None
        found = root + _canonical(unquote(fragment))
        return found if self.at(found) is not None else None

    def at(self, place: str) -> dict[str, Any] | bool | None:
        """Return the subschema at a place; None if there is none."""
        here = self._schema
        for step in place.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(here, dict):
                here = here.get(key)
            elif isinstance(here, list) and key.isdecimal() and int(key) < len(here):
                here = here[int(key)]
            else:
                return None
        return here if isinstance(here, (dict, bool)) else None

    def _base(self, place: str) -> str:
        while place not in self._bases:
            place = place.rpartition("/")[0]
        return self._bases[place]

    def _collect(self, schema: Any, place: str, base: str) -> None:
        waiting = [(schema, place, base)]
        while waiting:
            node, place, base = waiting.pop()
            if isinstance(node, list):
                waiting += [(child, f"{place}/{n}", base) for n, child in enumerate(node)]
            if not isinstance(node, dict):
                continue
            if isinstance(node.get("$id"), str):
                base = urldefrag(_join(base, node["$id"]))[0]
                self._places[base] = place
                self._bases[place] = base
            for anchor in ("$anchor", "$dynamicAnchor"):
                if isinstance(node.get(anchor), str):
                    self._places[f"{base}#{node[anchor]}"] = place
            for key, child in node.items():
                if key not in _DATA:
                    waiting.append((child, f"{place}/{escape(key)}", base))


def escape(key: str) -> str:
    """Return a key as one step of a JSON Pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def _canonical(pointer: str) -> str:
    """Return a JSON Pointer in which every ``~`` is escaped in the one way that ``escape`` uses."""
    steps = (step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/"))
    return "/".join(map(escape, steps))


def _join(base: str, reference: str) -> str:
    if reference.startswith("#"):
        return base + reference
    # urljoin knows no relative references to a URN, which has no parts.
    return urljoin(base, reference) if base else reference
