import assert from "node:assert/strict";
import { test } from "node:test";
import {
  isFieldForm,
  NoFields,
  rowsOf,
  toFields,
  withAttribute,
  withField,
  withType,
  type Field,
} from "../../src/fields.js";
import { keySuggestions, schemasAt, valueSuggestions } from "../../src/schema.js";

const SCHEMA = {
  type: "object",
  required: ["user"],
  properties: {
    user: { type: "string", description: "Who" },
    mode: { enum: ["fast", "slow"], default: "slow" },
    on: { type: "boolean" },
    address: { $ref: "#/$defs/address" },
    tags: { type: "array", items: { anyOf: [{ type: "string" }, { $ref: "#/$defs/address" }] } },
  },
  $defs: { address: { type: "object", properties: { street: { type: ["string", "null"] }, next: { $ref: "#/$defs/address" } } } },
};

test("keys that are not there yet are suggested, with type and description", () => {
  const found = keySuggestions(SCHEMA, [], ["on", "tags"]);
  assert.deepEqual(found.map(({ label }) => label), ["user", "mode", "address"]);
  assert.deepEqual([found[0]?.detail, found[0]?.info, found[0]?.text], ["string, required", "Who", '"user"']);
});

test("references and combinations are followed", () => {
  assert.deepEqual(keySuggestions(SCHEMA, ["address", "next", "next"], []).map(({ label }) => label), ["street", "next"]);
  assert.deepEqual(keySuggestions(SCHEMA, ["tags", "3"], []).map(({ label }) => label), ["street", "next"]);
  assert.deepEqual(schemasAt(SCHEMA, ["nothing"]), []);
});

test("a reference to itself ends", () => {
  assert.ok(schemasAt({ $ref: "#" }, []).length > 0);
  assert.deepEqual(schemasAt({ $ref: "https://elsewhere.example/x" }, ["a"]), []);
});

test("values are suggested by enum, default and type", () => {
  const texts = (path: string[]): string[] => valueSuggestions(SCHEMA, path).map(({ text }) => text);
  assert.deepEqual(texts(["mode"]), ['"fast"', '"slow"']);
  assert.deepEqual(texts(["on"]), ["true", "false"]);
  assert.deepEqual(texts(["address", "street"]), ["null", '""']);
});

// --- fields

const FORM = {
  fields: [
    { name: "loggedIn", type: "boolean", required: true },
    { name: "token", type: "string", secret: true, minLength: 3, maxLength: 9, pattern: "^t" },
    { name: "n", type: "number", integer: true, min: 0, max: 9, defaultValue: 0 },
    { name: "list", type: "array", minItems: 1, maxItems: 5, items: { type: "string", enum: ["a", "b"] } },
    { name: "account", type: "object", properties: [{ name: "user", type: "string", required: true }] },
    { name: "any", type: "any", description: "Whatever" },
  ] as Field[],
};
const AS_SCHEMA = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  properties: {
    loggedIn: { type: "boolean" },
    token: { type: "string", writeOnly: true, pattern: "^t", minLength: 3, maxLength: 9 },
    n: { type: "integer", minimum: 0, maximum: 9, default: 0 },
    list: { type: "array", minItems: 1, maxItems: 5, items: { type: "string", enum: ["a", "b"] } },
    account: { type: "object", properties: { user: { type: "string" } }, required: ["user"] },
    any: { description: "Whatever" },
  },
  required: ["loggedIn"],
};

test("a JSON Schema becomes the table that stands for it", () => {
  assert.deepEqual(toFields(AS_SCHEMA), FORM);
  assert.ok(isFieldForm(FORM));
  assert.ok(!isFieldForm(AS_SCHEMA));
});

for (const [why, schema] of [
  ["additionalProperties", { type: "object", additionalProperties: false }],
  ["several types", { type: "object", properties: { a: { type: ["string", "null"] } } }],
  ["oneOf", { type: "object", properties: { a: { oneOf: [] } } }],
  ["the type object", { properties: {} }],
  ["requires b", { type: "object", properties: { a: {} }, required: ["b"] }],
  ["is no object", true],
] as const) {
  test(`a table says that it cannot show ${why}`, () => {
    assert.throws(() => toFields(schema), (problem: Error) => problem instanceof NoFields && problem.message.includes(why));
  });
}

test("rows are fields with what is inside them, and each can be changed", () => {
  const rows = rowsOf(FORM.fields);
  assert.deepEqual(
    rows.map(({ depth, path }) => `${depth} ${path.join(".")}`),
    ["0 0", "0 1", "0 2", "0 3", "1 3.items", "0 4", "1 4.0", "0 5"],
  );
  for (const { path } of rows) {
    const changed = withField(FORM.fields, path, (field) => ({ ...field, description: "x" }));
    const same = rowsOf(changed).filter(({ field }) => field.description === "x");
    assert.equal(same.length, 1);
    assert.deepEqual(same[0]?.path, path);
    assert.equal(rowsOf(withField(FORM.fields, path, () => null)).some((row) => row.field.description === "x"), false);
  }
  assert.equal(rowsOf(withField(FORM.fields, [3, "items"], () => null)).length, rows.length - 1);
});

test("another type drops the limits that it does not have", () => {
  assert.deepEqual(withType(FORM.fields[1] as Field, "number"), { name: "token", type: "number", secret: true });
  assert.deepEqual(withType(FORM.fields[3] as Field, "object"), { name: "list", type: "object" });
});

test("an attribute that is empty is left out", () => {
  assert.deepEqual(withAttribute({ type: "string", pattern: "x" }, "pattern", ""), { type: "string" });
  assert.deepEqual(withAttribute({ type: "number" }, "min", 0), { type: "number", min: 0 });
  assert.deepEqual(withAttribute({ type: "number", required: true }, "required", false), { type: "number" });
});
