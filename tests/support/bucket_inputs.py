"""Inputs of the stateful test: hypothesis strategies, and requests that must be refused."""

from __future__ import annotations

from typing import Any

from bucket_model import NAMES
from hypothesis import strategies as st

MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
KEYS = ["", "a", "b", "ä/~", "__proto__"]

names = st.sampled_from(NAMES)
keys = st.sampled_from(KEYS)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([-(2**63), 2**64 - 1, 0.5, 1.0, "", "x", "😀\u0000"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=4,
)
buckets = st.dictionaries(keys, values, max_size=3)
paths = st.sampled_from(["/a", "/b", "/a/b", "/b/0", "/b/-", "/", "/ä~1~0"])
operations = st.one_of(
    st.fixed_dictionaries(
        {
            "op": st.sampled_from(["add", "add", "add", "replace", "test"]),
            "path": paths,
            "value": values,
        }
    ),
    st.fixed_dictionaries({"op": st.just("remove"), "path": paths}),
    st.fixed_dictionaries({"op": st.sampled_from(["move", "copy"]), "path": paths, "from": paths}),
)
BAD_INPUT: list[tuple[str, str, Any, dict[str, str], int, str]] = [
    ("PATCH", "", b"{", {}, 400, "invalid_json"),
    ("PUT", "", b'{"a": NaN}', {}, 400, "invalid_json"),
    ("PUT", "", b'{"a": 18446744073709551616}', {}, 400, "invalid_json"),
    ("PATCH", "", b'{"a": "\\ud800"}', {}, 400, "invalid_json"),
    ("PATCH", "", [1], {}, 400, "invalid_json"),
    ("PUT", "", {"a": "x" * (1 << 20)}, {}, 413, "too_large"),
    ("PATCH", "", {"a": 1}, {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    ("PATCH", "", [{"op": "add"}], JSON_PATCH, 400, "invalid_request"),
    ("PATCH", "", {"a": {"$masked": True}}, {}, 400, "invalid_request"),
    ("PATCH", "", {"a": [{"$masked": True, "b": 1}]}, MERGE_PATCH, 400, "invalid_request"),
    (
        "PATCH",
        "",
        [{"op": "add", "path": "/a", "value": {"$masked": True}}],
        JSON_PATCH,
        400,
        "invalid_request",
    ),
    ("PUT", "", b'[{"\\u0024masked": true}]', {}, 400, "invalid_request"),
    ("GET", "?mask=all", None, {}, 400, "invalid_request"),
    ("PUT", "", {"a": 1}, {"If-Match": ""}, 400, "invalid_request"),
    ("PUT", "", {"a": 1}, {"Origin": "http://localhost"}, 403, "forbidden"),
    ("DELETE", "?keys=a", None, {}, 400, "invalid_request"),
    ("POST", "", {"a": 1}, {}, 405, "method_not_allowed"),
]


def query_of(chosen: list[str]) -> str:
    quoted = ("".join(f"%{byte:02X}" for byte in key.encode()) for key in chosen)
    return "?" + "&".join(f"key={key}" for key in quoted)


def merged(target: Any, patch: Any) -> Any:
    """Merge by RFC 7396, after the RFC's pseudocode."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
