/** What a JSON Schema says about one place of a document, for completion. */

type Schema = Record<string, unknown>;

const isSchema = (value: unknown): value is Schema =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const MOST_STEPS = 64;

/** Return the schemas that apply at the place with these names. */
export function schemasAt(root: unknown, path: readonly string[]): Schema[] {
  let found = expand(root, root);
  for (const name of path) {
    found = found.flatMap((schema) => below(schema, name)).flatMap((s) => expand(root, s));
  }
  return found;
}

/** Return a schema with what it refers to and combines. */
function expand(root: unknown, schema: unknown, steps = MOST_STEPS): Schema[] {
  if (!isSchema(schema) || steps === 0) return [];
  const found = [schema];
  if (typeof schema.$ref === "string") {
    found.push(...expand(root, resolve(root, schema.$ref), steps - 1));
  }
  for (const keyword of ["allOf", "anyOf", "oneOf"]) {
    const list = schema[keyword];
    if (Array.isArray(list)) found.push(...list.flatMap((s) => expand(root, s, steps - 1)));
  }
  return found;
}

function resolve(root: unknown, reference: string): unknown {
  if (reference !== "#" && !reference.startsWith("#/")) return undefined;
  let found = root;
  for (const part of reference.split("/").slice(1)) {
    const name = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
    found = isSchema(found) ? found[name] : Array.isArray(found) ? found[Number(name)] : undefined;
  }
  return found;
}

function below(schema: Schema, name: string): unknown[] {
  const properties = schema.properties;
  if (isSchema(properties) && Object.hasOwn(properties, name)) return [properties[name]];
  if (/^\d+$/.test(name)) {
    const tuple = schema.prefixItems;
    if (Array.isArray(tuple) && Number(name) < tuple.length) return [tuple[Number(name)]];
    if (schema.items !== undefined) return [schema.items];
  }
  return schema.additionalProperties === undefined ? [] : [schema.additionalProperties];
}

export interface Suggestion {
  label: string;
  /** The JSON text to insert. */
  text: string;
  detail: string;
  info: string;
}

/** Return the keys that the schema names at this place and that are not there yet. */
export function keySuggestions(
  root: unknown,
  path: readonly string[],
  present: readonly string[],
): Suggestion[] {
  const found = new Map<string, Suggestion>();
  for (const schema of schemasAt(root, path)) {
    const required = Array.isArray(schema.required) ? schema.required : [];
    if (!isSchema(schema.properties)) continue;
    for (const [name, property] of Object.entries(schema.properties)) {
      if (present.includes(name)) continue;
      const shape = isSchema(property) ? property : {};
      found.set(name, {
        label: name,
        text: JSON.stringify(name),
        detail: [typeName(shape), required.includes(name) ? "required" : ""].filter(Boolean).join(", "),
        info: typeof shape.description === "string" ? shape.description : "",
      });
    }
  }
  return [...found.values()];
}

/** Return the values that the schema names at this place. */
export function valueSuggestions(root: unknown, path: readonly string[]): Suggestion[] {
  const found = new Map<string, Suggestion>();
  const add = (value: unknown, detail: string): void => {
    const text = JSON.stringify(value);
    if (!found.has(text)) found.set(text, { label: text, text, detail, info: "" });
  };
  for (const schema of schemasAt(root, path)) {
    if (schema.const !== undefined) add(schema.const, "constant");
    if (Array.isArray(schema.enum)) for (const value of schema.enum) add(value, "enum");
    if (schema.default !== undefined) add(schema.default, "default");
    const types = Array.isArray(schema.type) ? schema.type : [schema.type];
    if (types.includes("boolean")) [true, false].forEach((value) => add(value, "boolean"));
    if (types.includes("null")) add(null, "null");
    if (types.includes("object")) add({}, "object");
    if (types.includes("array")) add([], "array");
    if (types.includes("string") && !schema.enum) add("", "string");
  }
  return [...found.values()];
}

export function typeName(schema: Schema): string {
  const type = schema.type;
  if (Array.isArray(type)) return type.join(" or ");
  return typeof type === "string" ? type : "any";
}
