"""Which values of a bucket a schema marks as secret: whatever may be one is masked."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bucketd.core.schemas.masking import MAX_WORK, Masking
from bucketd.core.schemas.validator import compile_schema
from bucketd.errors import BucketdError
from bucketd.model.bucket import Snapshot
from bucketd.model.document import Document
from bucketd.model.masks import MASK, refuse_masks

S: dict[str, Any] = {"writeOnly": True}
PASSWORD: dict[str, Any] = {"format": "password"}


def props(**properties: Any) -> dict[str, Any]:
    return {"properties": properties}


PLACES: dict[str, tuple[Any, Any, list[str]]] = {
    "writeOnly": (props(a=S), {"a": "x", "b": "y"}, ["/a"]),
    "the format password": (props(a=PASSWORD), {"a": "x", "b": "y"}, ["/a"]),
    "writeOnly that is false": (props(a={"writeOnly": False}), {"a": "x"}, []),
    "writeOnly that is no boolean": (props(a={"const": "writeOnly"}), {"a": "writeOnly"}, []),
    "null, and every other type": (
        props(**dict.fromkeys("abcdef", S)),
        {"a": None, "b": 0, "c": "", "d": [], "e": {}, "f": False},
        ["/a", "/b", "/c", "/d", "/e", "/f"],
    ),
    "the field form": (
        {"fields": [{"name": "a", "type": "any", "secret": True}, {"name": "b", "type": "any"}]},
        {"a": 1, "b": 2},
        ["/a"],
    ),
    "secret: false": (
        {"fields": [{"name": "a", "type": "any", "secret": False}]},
        {"a": 1},
        [],
    ),
    "fields in fields": (
        {"fields": [{"name": "o", "type": "object", "properties": [
            {"name": "p", "type": "string", "secret": True}]}]},
        {"o": {"p": "x", "q": 1}, "p": 1},
        ["/o/p"],
    ),
    "items in the field form": (
        {"fields": [{"name": "l", "type": "array", "items": {"type": "string", "secret": True}}]},
        {"l": ["a", "b"]},
        ["/l/0", "/l/1"],
    ),
    "a whole object": (props(o={**S, **props(q={})}), {"o": {"q": 1}}, ["/o"]),
    "the whole bucket": (S, {"a": 1, "b": {}}, ["/a", "/b"]),
    "names with slashes and tildes": (props(**{"a/b~c": S, "": S}), {"a/b~c": 1, "": 1},
                                      ["/a~1b~0c", "/"]),
    "allOf": ({"allOf": [props(a=S), {}]}, {"a": 1}, ["/a"]),
    "each branch of anyOf": ({"anyOf": [props(a=S), props(b=S)]}, {"a": 1, "b": 2}, ["/a", "/b"]),
    "each branch of oneOf": (
        {"oneOf": [props(k={"const": 1}, a=S), props(k={"const": 2})]},
        {"k": 2, "a": 1},
        ["/a"],
    ),
    "if, then, else": (
        {"if": props(a=S), "then": props(b=S), "else": props(c=S)},
        {"a": 1, "b": 2, "c": 3, "d": 4},
        ["/a", "/b", "/c"],
    ),
    "dependentSchemas": ({"dependentSchemas": {"x": props(a=S)}}, {"a": 1}, ["/a"]),
    "not": ({"not": {"not": props(a=S)}}, {"a": 1}, ["/a"]),
    "$ref": ({**props(a={"$ref": "#/$defs/s"}), "$defs": {"s": S}}, {"a": 1}, ["/a"]),
    "$ref beside others": (
        {**props(a={"$ref": "#/$defs/s", "type": "object"}), "$defs": {"s": props(p=S)}},
        {"a": {"p": 1, "q": 2}},
        ["/a/p"],
    ),
    "$ref to a place with an escape": (
        {**props(a={"$ref": "#/$defs/x~1y"}), "$defs": {"x/y": S}}, {"a": 1}, ["/a"],
    ),
    "$ref to an anchor": (
        {**props(a={"$ref": "#s"}), "$defs": {"s": {"$anchor": "s", **S}}}, {"a": 1}, ["/a"],
    ),
    "$ref to an $id": (
        {**props(a={"$ref": "http://x/s"}), "$defs": {"s": {"$id": "http://x/s", **S}}},
        {"a": 1},
        ["/a"],
    ),
    "$ref to a relative $id": (
        {"$id": "http://x/root", **props(a={"$ref": "s"}), "$defs": {"s": {"$id": "s", **S}}},
        {"a": 1},
        ["/a"],
    ),
    "$dynamicRef": (
        {**props(a={"$dynamicRef": "#s"}), "$defs": {"s": {"$dynamicAnchor": "s", **S}}},
        {"a": 1},
        ["/a"],
    ),
    "recursion": (
        {"$ref": "#/$defs/n", "$defs": {"n": props(child={"$ref": "#/$defs/n"}, s=S)}},
        {"s": 1, "child": {"s": 2, "child": {"s": 3, "t": 4}}},
        ["/s", "/child/s", "/child/child/s"],
    ),
    "a definition that nothing refers to": ({"$defs": {"s": S}, **props(a={})}, {"s": 1}, []),
    "the dialect's own schema": (
        props(a={"$ref": "https://json-schema.org/draft/2020-12/schema"}, b=S),
        {"a": {"writeOnly": True}, "b": 1},
        ["/b"],
    ),
    "items": (props(l={"items": S}), {"l": [1, 2]}, ["/l/0", "/l/1"]),
    "items of items": (
        props(l={"items": {"items": props(p=S)}}), {"l": [[{"p": 1}], [{"q": 1}]]}, ["/l/0/0/p"],
    ),
    "prefixItems": (
        props(l={"prefixItems": [{}, S], "items": props(p=S)}),
        {"l": [1, 2, {"p": 3}, 4]},
        ["/l/1", "/l/2/p"],
    ),
    "prefixItems of a short array": (props(l={"prefixItems": [{}, S]}), {"l": [1]}, []),
    "contains": (props(l={"contains": props(p=S)}), {"l": [{"p": 1}, {"q": 1}]}, ["/l/0/p"]),
    "unevaluatedItems": (
        props(l={"prefixItems": [{}], "unevaluatedItems": S}), {"l": [1, 2]}, ["/l/1"],
    ),
    "patternProperties": (
        {"patternProperties": {"^tok": S}}, {"tok": 1, "token": 2, "a": 3}, ["/tok", "/token"],
    ),
    "patternProperties that look around": (
        {"patternProperties": {"^(?!pub)": S}}, {"pub": 1, "priv": 2}, ["/priv"],
    ),
    "a pattern in the schema's dialect": (
        {"patternProperties": {r"^\p{Lu}$": S}}, {"É": 1, "é": 2}, ["/É"],
    ),
    "a pattern that takes too long": (
        {"patternProperties": {r"(a+a+)+\1y": S}}, {"a" * 60 + "!": 1}, ["/" + "a" * 60 + "!"],
    ),
    "additionalProperties": (
        {**props(a={}), "patternProperties": {"^x": {}}, "additionalProperties": S},
        {"a": 1, "x1": 2, "b": 3},
        ["/b"],
    ),
    "unevaluatedProperties": (
        {**props(a={}), "unevaluatedProperties": S}, {"a": 1, "b": 2}, ["/b"],
    ),
    "unevaluatedProperties that another subschema may evaluate": (
        {"anyOf": [props(b={})], "unevaluatedProperties": S}, {"b": 2}, ["/b"],
    ),
    "unevaluatedProperties beside additionalProperties": (
        {"additionalProperties": {}, "unevaluatedProperties": S}, {"b": 2}, [],
    ),
    "propertyNames": ({"propertyNames": S}, {"a": 1}, []),
    "the JSON in a string": (
        props(a={"contentMediaType": "application/json", "contentSchema": props(p=S)}, b={}),
        {"a": '{"p": 1}', "b": 1},
        ["/a"],
    ),
    "a key that is a word of the schema": (props(properties=S, items={}), {"properties": 1},
                                           ["/properties"]),
    "no schema for the place": (props(a=props(p=S)), {"a": [{"p": 1}], "p": 1}, []),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_where_secrets_are(name: str) -> None:
    schema, bucket, places = PLACES[name]
    compiled = compile_schema(schema)
    found = [] if compiled.secrets is None else compiled.secrets.places(bucket)
    assert found == places
    for place in places:
        assert compiled.secrets is not None
        assert compiled.secrets.is_secret(path_of(bucket, place))


def path_of(bucket: Any, place: str) -> list[Any]:
    path: list[Any] = []
    for escaped in place.split("/")[1:]:
        step = escaped.replace("~1", "/").replace("~0", "~")
        path.append(int(step) if isinstance(bucket, list) else step)
        bucket = bucket[path[-1]]
    return path


def test_a_reference_that_cannot_be_followed_may_lead_to_a_secret() -> None:
    """Such as one of very many with the same end, of which the library takes the right one."""
    many = {f"d{n}": {"$id": f"http://x/{n}/s", **(S if n == 40 else {})} for n in range(50)}
    schema = {"$defs": many, **props(a={"$ref": "http://x/1/s"})}
    assert masked(schema, {"a": 1, "b": 2}) == {"a": MASK, "b": 2}


def masked(schema: Any, bucket: dict[str, Any]) -> dict[str, Any]:
    """The bucket, masked as values, as a document and by members, which is the same."""
    secrets = compile_schema(schema).secrets
    assert secrets is not None
    masking, before = Masking((secrets,)), json.dumps(bucket)
    found = masking.values(bucket)
    whole = Snapshot(Document.of(bucket), 1, "e")
    split = Document.of(bucket)
    assert split.members
    for state in (whole, whole._replace(bucket=split)):
        form = masking.snapshot(state)
        assert form.bucket.values() == found
        assert form.etag != "e"
    assert json.dumps(bucket) == before
    return found


names = st.sampled_from(["a", "b", "xa", "xb"])
leaves = st.sampled_from([{}, True, S, PASSWORD, {"type": "string"}, {"$ref": "#/$defs/d"}])
schemas = st.recursive(
    leaves,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(names, inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^x", "a$"]), inner, max_size=1),
            "additionalProperties": inner,
            "unevaluatedProperties": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "contains": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "if": inner,
            "then": inner,
            "else": inner,
            "dependentSchemas": st.dictionaries(names, inner, max_size=1),
        },
    ),
    max_leaves=8,
)
values = st.recursive(
    st.sampled_from([1, "t", None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(schemas, schemas, st.dictionaries(names, values, max_size=3))
def test_what_the_library_annotates_is_masked(schema: Any, d: Any, bucket: Any) -> None:
    """Whatever subschemas the library applied, no value that one of them marks is shown."""
    document = {"allOf": [schema], "$defs": {"d": d}}
    try:
        secrets = compile_schema(document).secrets
    except BucketdError:
        return
    evaluated = jsonschema_rs.Draft202012Validator(document).evaluate(bucket)
    places = secrets.places(bucket) if secrets is not None else []
    for found in evaluated.annotations():
        told = found["annotations"]
        if isinstance(told, dict) and told.get("writeOnly") is True:
            place = found["instanceLocation"]
            covered = any(place == p or place.startswith(f"{p}/") for p in places)
            assert covered or (place == "" and len(places) == len(bucket)), found


def test_a_mask_of_another_schema_stays() -> None:
    one, other = (compile_schema(schema).secrets for schema in (
        props(a=S), {"additionalProperties": {"additionalProperties": S}}))  # fmt: skip
    assert one is not None
    assert other is not None
    bucket = {"a": 1, "b": {"c": 2}}
    assert Masking((one, other)).values(bucket) == {"a": MASK, "b": {"c": MASK}}


def test_the_work_is_bounded() -> None:
    """A bucket that would take too long is masked further than it has to be, and never less."""
    patterns = {f"^k{n}.*x$": S for n in range(200)}
    keys = {f"k{n}": n for n in range(20_000)}
    began = time.process_time()
    found = masked({"patternProperties": patterns, "properties": {"p": {}}}, keys)
    assert time.process_time() - began < 20
    assert set(map(json.dumps, found.values())) > {json.dumps(MASK)}
    assert MAX_WORK < 200 * 20_000


def test_deep_buckets_and_long_arrays() -> None:
    tree = {"$ref": "#/$defs/n", "$defs": {"n": {**props(s=S), "items": {"$ref": "#/$defs/n"},
            "additionalProperties": {"$ref": "#/$defs/n"}}}}  # fmt: skip
    deep: Any = {"s": 1}
    for level in range(240):
        deep = {"k": deep} if level % 2 else [deep]
    assert b'"s":1' not in orjson.dumps(masked(tree, {"k": deep}))
    assert b"$masked" in orjson.dumps(masked(tree, {"k": deep}))
    numbers = list(range(100_000))
    assert masked({**props(n={"items": props(s=S)}, t=S)}, {"n": numbers, "t": 1})["n"] == numbers


def test_another_schema_makes_another_form() -> None:
    tags = {compile_schema(props(**{key: S})).secrets.fingerprint for key in "abc"}  # type: ignore[union-attr]
    assert len(tags) == 3
    again = [compile_schema(json.loads(json.dumps(props(a=S, b={})))).secrets for _ in range(2)]
    assert len({secrets.fingerprint for secrets in again if secrets is not None}) == 1


MARKED = [
    b'{"a":{"$masked":true}}', b'{"a": { "$masked" : true } }', b'[[{"$masked":true}]]',
    b'{"a":{"b":1,"$masked":true}}', b'{"a":{"$masked":true,"b":1}}', b'{"$masked":true}',
    rb'{"a":{"\u0024masked":true}}', rb'{"a":{"$m\u0061sked":true}}',
    rb'{"a":{"\u0024\u006D\u0061\u0073\u006b\u0065\u0064":true}}',
    b'{"a":1,"b":["\\"",{"$masked":true}]}',
]  # fmt: skip
UNMARKED = [
    b'{"a":"{\\"$masked\\":true}"}', b'{"a":"$masked"}', b'{"$masked":false}', b'{"$masked":1}',
    b'{"a\\"$masked":true}', b'{"x$masked":true}', rb'{"a":"\u00e9"}', b'["$masked",true]',
    b'{"a":",\\"$masked\\":true"}', b'{"\\\\":{"masked":true}}', b'{"masked":true}',
]  # fmt: skip


@pytest.mark.parametrize("body", MARKED)
def test_a_mask_is_found(body: bytes) -> None:
    with pytest.raises(BucketdError, match="cannot write a mask"):
        refuse_masks(body, orjson.loads(body))


@pytest.mark.parametrize("body", UNMARKED)
def test_what_only_looks_like_a_mask(body: bytes) -> None:
    refuse_masks(body, orjson.loads(body))


def test_the_place_of_a_mask_is_told() -> None:
    value = {"a~/": [0, {"b": MASK}], "c": MASK}
    with pytest.raises(BucketdError, match='"/a~0~1/1/b"'):
        refuse_masks(orjson.dumps(value), value)
