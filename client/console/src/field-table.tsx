/** The table of fields: one row each, nested ones indented below what holds them. */

import type { JSX } from "preact";
import { useState } from "preact/hooks";
import {
  LIMITS,
  rowsOf,
  TYPES,
  withAttribute,
  withField,
  withType,
  type Field,
  type FieldForm,
  type FieldType,
  type Row,
} from "./fields.js";

interface Props {
  form: FieldForm;
  onChange: (form: FieldForm) => void;
}

const LIMIT_NAMES: Partial<Record<keyof Field, string>> = {
  minLength: "min. length",
  maxLength: "max. length",
  pattern: "pattern",
  enum: "one of",
  min: "min.",
  max: "max.",
  integer: "whole",
  minItems: "min. items",
  maxItems: "max. items",
};

export function FieldTable({ form, onChange }: Props): JSX.Element {
  const rows = rowsOf(form.fields);
  const put = (fields: Field[]): void => onChange({ ...form, fields });
  const change = (row: Row, how: (field: Field) => Field | null): void =>
    put(withField(form.fields, row.path, how));
  return (
    <>
      <div class="table-box" tabIndex={0} role="region" aria-label="Table of fields">
        <table class="fields">
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Type</th>
              <th scope="col">Required</th>
              <th scope="col">Limits</th>
              <th scope="col">Default</th>
              <th scope="col">Secret</th>
              <th scope="col">Description</th>
              <th scope="col">
                <span class="hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row) => (
              <FieldRow key={row.path.join(".")} row={row} change={(how) => change(row, how)} />
            ))}
          </tbody>
        </table>
      </div>
      <button
        type="button"
        onClick={() => put([...form.fields, { name: freeName(form.fields), type: "string" }])}
      >
        Add a field
      </button>
    </>
  );
}

function freeName(fields: readonly Field[]): string {
  let count = fields.length + 1;
  while (fields.some(({ name }) => name === `field${count}`)) count++;
  return `field${count}`;
}

function FieldRow(props: {
  row: Row;
  change: (how: (field: Field) => Field | null) => void;
}): JSX.Element {
  const { row, change } = props;
  const { field, depth, path } = row;
  const isItems = path.at(-1) === "items";
  const label = isItems ? "items" : (field.name ?? "");
  const set = (name: keyof Field, value: unknown): void =>
    change((old) => withAttribute(old, name, value));
  return (
    <tr>
      <th scope="row" class={`depth-${Math.min(depth, 6)}`}>
        {isItems ? (
          <span class="dim">each item</span>
        ) : (
          <input
            aria-label={`Name of ${label}`}
            value={field.name}
            onChange={(event) => set("name", event.currentTarget.value)}
          />
        )}
      </th>
      <td>
        <select
          aria-label={`Type of ${label}`}
          value={field.type}
          onChange={(event) => {
            const type = event.currentTarget.value as FieldType;
            change((old) => withType(old, type));
          }}
        >
          {TYPES.map((type) => (
            <option key={type}>{type}</option>
          ))}
        </select>
      </td>
      <td>
        {!isItems && (
          <Check label={`${label} is required`} value={field.required} set={(v) => set("required", v)} />
        )}
      </td>
      <td class="limits">
        <Limits field={field} label={label} set={set} />
      </td>
      <td>
        <JsonInput
          label={`Default of ${label}`}
          value={field.defaultValue}
          set={(value) => set("defaultValue", value)}
        />
      </td>
      <td>
        <Check label={`${label} is a secret`} value={field.secret} set={(v) => set("secret", v)} />
      </td>
      <td>
        <input
          aria-label={`Description of ${label}`}
          value={field.description ?? ""}
          onChange={(event) => set("description", event.currentTarget.value)}
        />
      </td>
      <td class="row-actions">
        {field.type === "object" && (
          <button
            type="button"
            class="quiet"
            aria-label={`Add a field to ${label}`}
            onClick={() =>
              change((old) => {
                const inner = old.properties ?? [];
                return { ...old, properties: [...inner, { name: freeName(inner), type: "string" }] };
              })
            }
          >
            + field
          </button>
        )}
        {field.type === "array" && field.items === undefined && (
          <button
            type="button"
            class="quiet"
            aria-label={`Describe the items of ${label}`}
            onClick={() => change((old) => ({ ...old, items: { type: "string" } }))}
          >
            + items
          </button>
        )}
        <button
          type="button"
          class="quiet"
          aria-label={`Remove ${label}`}
          onClick={() => change(() => null)}
        >
          ✕
        </button>
      </td>
    </tr>
  );
}

function Check(props: {
  label: string;
  value: boolean | undefined;
  set: (value: boolean) => void;
}): JSX.Element {
  return (
    <input
      type="checkbox"
      aria-label={props.label}
      checked={props.value ?? false}
      onChange={(event) => props.set(event.currentTarget.checked)}
    />
  );
}

function Limits(props: {
  field: Field;
  label: string;
  set: (name: keyof Field, value: unknown) => void;
}): JSX.Element {
  const { field, label, set } = props;
  return (
    <>
      {LIMITS[field.type].map((name) => {
        const title = LIMIT_NAMES[name] ?? name;
        const what = `${title} of ${label}`;
        if (name === "integer") {
          return (
            <label key={name}>
              <Check label={what} value={field.integer} set={(v) => set(name, v)} /> {title}
            </label>
          );
        }
        return (
          <label key={name}>
            {title}{" "}
            {name === "pattern" ? (
              <input
                aria-label={what}
                value={field.pattern ?? ""}
                onChange={(event) => set(name, event.currentTarget.value)}
              />
            ) : (
              <JsonInput label={what} value={field[name]} set={(value) => set(name, value)} />
            )}
          </label>
        );
      })}
    </>
  );
}

/** An input of a JSON value; what is no JSON stays in it, marked, and is not taken over. */
function JsonInput(props: {
  label: string;
  value: unknown;
  set: (value: unknown) => void;
}): JSX.Element {
  const text = props.value === undefined ? "" : JSON.stringify(props.value);
  const [wrong, setWrong] = useState(false);
  return (
    <input
      class="json"
      aria-label={`${props.label}, as JSON`}
      aria-invalid={wrong}
      value={text}
      onChange={(event) => {
        const typed = event.currentTarget.value.trim();
        try {
          props.set(typed === "" ? undefined : (JSON.parse(typed) as unknown));
          setWrong(false);
        } catch {
          setWrong(true);
        }
      }}
    />
  );
}
