"""``bucketd.model.strict_json``: numbers as JavaScript writes them, and refusals without values."""

from __future__ import annotations

import json
import math
import shutil
import struct
import subprocess
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bucketd.errors import InvalidJson
from bucketd.model import changes, strict_json
from bucketd.model.document import Document

SECRET = "hunter2-secret"


def doubles() -> list[float]:
    """Doubles of every size, many where JavaScript writes digits that 64 bits do not hold."""
    found = [1e20, 1e21, 999999999999999900000.0, 2.0**63, 2.0**64, -(2.0**63), -(2.0**64), 5e-324]
    for step in range(20_000):
        found.append(2.0**63 * (1 + step / 20_000 * 109))  # to 10^21
        found.append(-found[-1])
        bits = (step * 0x9E3779B97F4A7C15 + 0x1234567) % 2**64
        found.append(struct.unpack("<d", struct.pack("<Q", bits))[0])
    return [number for number in found if math.isfinite(number)]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_what_javascript_writes_of_a_double_is_kept() -> None:
    numbers = doubles()
    program = (
        "const b = require('fs').readFileSync(0);"
        "const n = Array.from(new Float64Array(b.buffer, b.byteOffset, b.length / 8));"
        "process.stdout.write(n.map((x) => JSON.stringify(x)).join('\\n'))"
    )
    sent = struct.pack(f"<{len(numbers)}d", *numbers)
    done = subprocess.run(["node", "-e", program], input=sent, capture_output=True, check=True)
    texts = done.stdout.splitlines()
    assert len(texts) == len(numbers)
    long = 0
    for number, text in zip(numbers, texts, strict=True):
        # What is stored is read once more, as after a restart.
        kept = strict_json.loads(strict_json.dumps(strict_json.loads(text)))
        assert float(kept) == number, text
        long += type(kept) is float and b"e" not in text and b"." not in text
    assert long > 10_000


@given(st.integers(-(10**22), 10**22))
@example(2**64)
@example(2**64 - 1)
@example(10**20)
@example(10**21)
@example(18446744073709552000)
def test_an_integer_is_kept_exactly_or_refused(number: int) -> None:
    # Below 10^21 JavaScript writes the shortest digits of the double, filled up with zeros.
    shortest = f"{float(number)!r}".partition("e")[0].lstrip("-").replace(".", "").rstrip("0")
    as_javascript = abs(number) < 10**21 and shortest == str(abs(number)).rstrip("0")
    text = b'{"n":%d}' % number
    if -(2**63) <= number < 2**64:
        kept = strict_json.loads(text)["n"]
        assert (type(kept), kept) == (int, number)
    elif as_javascript:
        assert strict_json.loads(text) == {"n": float(number)}
    else:
        with pytest.raises(InvalidJson, match='the integer at "/n"') as refused:
            strict_json.loads(text)
        assert str(abs(number)) not in refused.value.message


TOO_LONG = 12345678901234567891234
PLACES = (
    lambda value: value,
    lambda value: [value],
    lambda value: [0, value],
    lambda value: {"1" * 20: value},
    lambda value: {"a": "," + "1" * 20, "b": [{"c": value}]},
)


@pytest.mark.parametrize("indent", [None, 0, 3])
@pytest.mark.parametrize("number", [TOO_LONG, -TOO_LONG])
@pytest.mark.parametrize("place", PLACES)
def test_an_integer_that_would_be_rounded_is_found_in_each_place(
    place: Any, number: int, indent: int | None
) -> None:
    with pytest.raises(InvalidJson):
        strict_json.loads(json.dumps(place(number), indent=indent).encode())
    # Digits in strings are no numbers.
    strict_json.loads(json.dumps(place(str(number)), indent=indent).encode())


@pytest.mark.parametrize("text", [b"100000000000000000000", b"1e20", b"1E+20", b"1e+20"])
def test_one_number_in_any_notation(text: bytes) -> None:
    stored = Document.of({"n": 1e20})
    value = strict_json.loads(b'{"n":%b}' % text)
    assert changes.merge(value).apply(stored) is stored
    assert changes.replace(value).apply(stored) is stored
    test = {"op": "test", "path": "/n", "value": value["n"]}
    assert changes.json_patch([test], 1 << 20).apply(stored) is stored


REFUSED = {
    "an integer": (b'{"a": {"b": [0, 123456789012345678901]}}', '"/a/b/1"', "21 digits"),
    "a long integer": (b'{"a": %b}' % (b"7" * 5000), '"/a"', "5000 digits"),
    "a negative one": (b"[-9223372036854775809]", '"/0"', "19 digits"),
    "NaN": (b'{"a/b": {"~": NaN}}', '"/a~1b/~0"', "NaN"),
    "Infinity": (b'{"a": [{}, {"b": -Infinity}]}', '"/a/1/b"', "Infinity"),
    "beyond doubles": (b'{"a": 1e999}', '"/a"', "larger than any double"),
    "a lone surrogate": (rb'{"a": ["%b\ud800"]}' % SECRET.encode(), '"/a/0"', "lone surrogate"),
    "half of a pair": (rb'{"a": "\ud83d\ude00\ud83d"}', '"/a"', "lone surrogate"),
    "as bytes": (b'{"a": "\xed\xa0\x80"}', '"/a"', "lone surrogate"),
    "in a key": (rb'{"a": {"b\udfff": 1}}', r'"/a/b\udfff"', "lone surrogate"),
    "below a quote": (rb'{"\"\u0000": NaN}', r'"/\"\u0000"', "NaN"),
    "of two equal keys": (rb'{"a": "\ud800", "a": 1}', '"/a"', "lone surrogate"),
    "below a long key": (b'{"%b": NaN}' % (b"k" * 9999), "kkk…", "NaN"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_named_by_its_place(name: str) -> None:
    text, place, cause = REFUSED[name]
    with pytest.raises(InvalidJson) as refused:
        strict_json.loads(text)
    message = refused.value.message
    assert place in message
    assert cause in message
    assert SECRET not in message
    assert len(message) < 600
    message.encode()


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": tru}', b'{"a":"\xff"}', b"[1,]", b'{"a" 1}'])
def test_what_is_no_json_is_told_by_line_and_column(text: bytes) -> None:
    with pytest.raises(InvalidJson, match=r"not valid JSON \(.*line 1 column"):
        strict_json.loads(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 1.5]) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def canonical(value: object) -> object:
    """The value in a form whose == is that of RFC 6902."""
    if isinstance(value, dict):
        return {key: canonical(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [canonical(inner) for inner in value]
    return (type(value).__name__ if isinstance(value, bool) else "", value)


@given(JSON, JSON)
@example([1], [True])
@example({"a": [0.0, 1]}, {"a": [False, 1.0]})
@example(1, 1.0)
def test_equality_of_rfc_6902(one: object, other: object) -> None:
    assert strict_json.equivalent(one, other) == (canonical(one) == canonical(other))
    assert strict_json.equivalent(one, json.loads(json.dumps(one)))
