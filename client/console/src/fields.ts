/** The field form of a schema, as the table edits it, and the JSON Schema that can be shown so. */

export const TYPES = ["string", "number", "integer", "boolean", "array", "object", "any"] as const;
export type FieldType = (typeof TYPES)[number];

export interface Field {
  name?: string;
  type: FieldType;
  required?: boolean;
  secret?: boolean;
  description?: string;
  defaultValue?: unknown;
  minLength?: number;
  maxLength?: number;
  pattern?: string;
  enum?: unknown[];
  min?: number;
  max?: number;
  integer?: boolean;
  minItems?: number;
  maxItems?: number;
  items?: Field;
  properties?: Field[];
}

export interface FieldForm {
  title?: string;
  description?: string;
  fields: Field[];
}

type Plain = Record<string, unknown>;

const isPlain = (value: unknown): value is Plain =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The limits of each type: attribute of the field, keyword of JSON Schema. */
export const LIMITS: Record<FieldType, readonly (keyof Field)[]> = {
  string: ["minLength", "maxLength", "pattern", "enum"],
  number: ["min", "max", "integer", "enum"],
  integer: ["min", "max", "enum"],
  boolean: [],
  array: ["minItems", "maxItems"],
  object: [],
  any: ["enum"],
};

const KEYWORDS: Record<string, keyof Field> = {
  description: "description",
  default: "defaultValue",
  writeOnly: "secret",
  minLength: "minLength",
  maxLength: "maxLength",
  pattern: "pattern",
  enum: "enum",
  minimum: "min",
  maximum: "max",
  minItems: "minItems",
  maxItems: "maxItems",
};

/** A schema that a table of fields cannot show; the message says which part. */
export class NoFields extends Error {}

/** Report whether a document is in the field form, as the daemon decides it. */
export function isFieldForm(document: unknown): document is FieldForm {
  return isPlain(document) && Array.isArray(document.fields) && !("$schema" in document);
}

/** Return the field form of a JSON Schema. Throw NoFields if that would lose something. */
export function toFields(schema: unknown): FieldForm {
  if (!isPlain(schema)) throw new NoFields("the schema is no object");
  const { $schema, title, description, ...rest } = schema;
  void $schema;
  return {
    ...(typeof title === "string" ? { title } : {}),
    ...(typeof description === "string" ? { description } : {}),
    fields: members(rest, "the schema"),
  };
}

function members(schema: Plain, where: string): Field[] {
  const { type, properties = {}, required = [], ...rest } = schema;
  if (type !== "object") throw new NoFields(`${where} must have the type object`);
  const other = Object.keys(rest)[0];
  if (other !== undefined) throw new NoFields(`${where} has ${other}`);
  if (!isPlain(properties) || !Array.isArray(required)) {
    throw new NoFields(`${where} has malformed properties`);
  }
  const missing = required.find((name) => !Object.hasOwn(properties, String(name)));
  if (missing !== undefined) throw new NoFields(`${where} requires ${missing}, which it lacks`);
  return Object.entries(properties).map(([name, property]) => ({
    name,
    ...field(property, name),
    ...(required.includes(name) ? { required: true } : {}),
  }));
}

function field(schema: unknown, where: string): Field {
  if (!isPlain(schema)) throw new NoFields(`${where} is no object`);
  const { type = "any", items, properties, required, ...rest } = schema;
  const integer = type === "integer";
  const kind = integer ? "number" : type;
  if (!TYPES.includes(kind as FieldType)) throw new NoFields(`${where} has several types`);
  const found: Plain = { type: kind };
  if (integer) found.integer = true;
  for (const [keyword, value] of Object.entries(rest)) {
    const name = KEYWORDS[keyword];
    if (name === undefined) throw new NoFields(`${where} has ${keyword}`);
    found[name] = value;
  }
  if (items !== undefined) found.items = field(items, `the items of ${where}`);
  if (kind === "object" && (properties !== undefined || required !== undefined)) {
    found.properties = members({ type, properties, required }, where);
  } else if (properties !== undefined || required !== undefined) {
    throw new NoFields(`${where} has properties and is no object`);
  }
  return found as unknown as Field;
}

/** One row of the table: a field, how deep it is nested, and how it is reached. */
export interface Row {
  field: Field;
  depth: number;
  /** Indexes and "items", from the outermost field to this one. */
  path: (number | "items")[];
}

export function rowsOf(fields: readonly Field[]): Row[] {
  const rows: Row[] = [];
  const visit = (item: Field, path: (number | "items")[], depth: number): void => {
    rows.push({ field: item, depth, path });
    if (item.items) visit(item.items, [...path, "items"], depth + 1);
    item.properties?.forEach((inner, at) => visit(inner, [...path, at], depth + 1));
  };
  fields.forEach((item, at) => visit(item, [at], 0));
  return rows;
}

/** Return the fields with the one at `path` replaced; null removes it. */
export function withField(
  fields: readonly Field[],
  path: readonly (number | "items")[],
  change: (field: Field) => Field | null,
): Field[] {
  const [first, ...rest] = path;
  return fields.flatMap((item, at) => {
    if (at !== first) return [item];
    const changed = rest.length === 0 ? change(item) : inside(item, rest, change);
    return changed === null ? [] : [changed];
  });
}

function inside(
  item: Field,
  path: readonly (number | "items")[],
  change: (field: Field) => Field | null,
): Field {
  if (path[0] !== "items") {
    return { ...item, properties: withField(item.properties ?? [], path, change) };
  }
  const { items, ...rest } = item;
  if (items === undefined) return item;
  const changed = path.length === 1 ? change(items) : inside(items, path.slice(1), change);
  return changed === null ? rest : { ...rest, items: changed };
}

/** Return the field with another type, without the limits that are not of this type. */
export function withType(item: Field, type: FieldType): Field {
  const kept: Plain = { ...item, type };
  for (const limit of Object.values(LIMITS).flat()) {
    if (!LIMITS[type].includes(limit)) delete kept[limit];
  }
  if (type !== "array") delete kept.items;
  if (type !== "object") delete kept.properties;
  return kept as unknown as Field;
}

/** Return the field with an attribute set; undefined or an empty string removes it. */
export function withAttribute(item: Field, name: keyof Field, value: unknown): Field {
  const changed: Plain = { ...item };
  if (value === undefined || value === "" || value === false) delete changed[name];
  else changed[name] = value;
  return changed as unknown as Field;
}
