/** The inputs of an automation: its schema as a table of fields, beside it as JSON Schema. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { call, Refused } from "./api.js";
import type { Violation } from "./cells.js";
import { EditorHost } from "./editor-host.js";
import { FieldTable } from "./field-table.js";
import { isFieldForm, NoFields, toFields, type FieldForm } from "./fields.js";
import { counted } from "./format.js";
import { checkSchemas } from "./live.js";
import { fragmentOf, go, route } from "./router.js";
import { Types } from "./types.js";
import { attempt, complain, confirm, Dialog, Loading, say } from "./ui.js";

const CHECK_MILLISECONDS = 400;

interface SchemaRow {
  automation: string;
  source: string;
  form: string | null;
  existing: string;
  problem: string | null;
}

export function InputsPage({ automation }: { automation: string | null }): JSX.Element {
  const [rows, setRows] = useState<SchemaRow[] | null>(null);
  const reload = async (): Promise<void> => {
    try {
      setRows((await call("GET", "/v1/schemas")).members.schemas as SchemaRow[]);
    } catch (problem) {
      complain(problem);
    }
  };
  useEffect(() => void reload(), []);
  if (rows === null) {
    return (
      <main>
        <h1>Inputs</h1>
        <Loading what="the schemas" />
      </main>
    );
  }
  const shown = automation ?? rows[0]?.automation ?? null;
  return (
    <main class="inputs-page">
      <h1>Inputs</h1>
      <AutomationChoice rows={rows} shown={shown} />
      {shown === null ? (
        <p class="empty">
          There is no schema yet. A schema names the fields of an automation's buckets; give the
          automation a name above to begin one.
        </p>
      ) : (
        <SchemaEditor
          key={shown}
          automation={shown}
          row={rows.find((row) => row.automation === shown)}
          saved={reload}
        />
      )}
    </main>
  );
}

function AutomationChoice({ rows, shown }: { rows: SchemaRow[]; shown: string | null }): JSX.Element {
  const [name, setName] = useState("");
  return (
    <div class="toolbar">
      <label>
        Automation{" "}
        <select
          value={shown ?? ""}
          onChange={(event) => go({ page: "inputs", automation: event.currentTarget.value })}
        >
          {shown !== null && !rows.some((row) => row.automation === shown) && (
            <option value={shown}>{shown} (new)</option>
          )}
          {rows.map((row) => (
            <option key={row.automation} value={row.automation}>
              {row.automation}
            </option>
          ))}
        </select>
      </label>
      <form
        class="inline"
        onSubmit={(event) => {
          event.preventDefault();
          if (name.trim()) go({ page: "inputs", automation: name.trim() });
          setName("");
        }}
      >
        <label>
          New{" "}
          <input
            value={name}
            placeholder="name of the automation"
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        <button type="submit" disabled={!name.trim()}>
          Begin
        </button>
      </form>
    </div>
  );
}

interface Checked {
  details: { device: string; job: string | null; violations: Violation[] }[];
  count: number;
  jsonSchema: unknown;
}

interface Draft {
  /** The document that is saved: the field form while a table can show it. */
  document: unknown;
  /** The text of the JSON Schema as it is typed, null while the table is what is edited. */
  typed: string | null;
  /** Whether it began as fields, and is saved so wherever they can express it. */
  asFields: boolean;
}

const EMPTY: Draft = {
  document: { fields: [] } satisfies FieldForm,
  typed: null,
  asFields: true,
};

function SchemaEditor(props: {
  automation: string;
  row: SchemaRow | undefined;
  saved: () => Promise<void>;
}): JSX.Element {
  const { automation, row, saved } = props;
  const path = `/v1/schemas/${encodeURIComponent(automation)}`;
  const [draft, setDraft] = useState<Draft | null>(row === undefined ? EMPTY : null);
  const [stored, setStored] = useState<string | null>(null);
  const [problem, setProblem] = useState("");
  const [conflict, setConflict] = useState<Refused | null>(null);
  const [defaults, setDefaults] = useState<string[]>([]);
  const load = async (): Promise<void> => {
    try {
      const { members } = await call("GET", path);
      setStored(JSON.stringify(members.schema));
      const { schema } = members;
      setDraft({ document: schema, typed: null, asFields: isFieldForm(schema) });
      setDefaults(Object.keys((members.defaults as object | null) ?? {}));
    } catch (cause) {
      if (cause instanceof Refused && cause.code === "not_found") setDraft(EMPTY);
      else complain(cause);
    }
  };
  useEffect(() => void (row === undefined ? undefined : load()), []);
  const checked = useDryRun(path, draft?.document, setProblem);
  const shownText = useRef("");
  const [serial, wasTyped] = [useRef(0), useRef(false)];
  if (draft === null) return <Loading what="the schema" />;

  const changed = JSON.stringify(draft.document) !== (stored ?? JSON.stringify(EMPTY.document));
  const fields = fieldsOf(draft.document);
  const save = (query: string): Promise<boolean> =>
    attempt(async () => {
      try {
        await call("PUT", `${path}${query}`, { body: JSON.stringify(draft.document) });
      } catch (cause) {
        if (cause instanceof Refused && cause.code === "schema_conflict") return setConflict(cause);
        throw cause;
      }
      setConflict(null);
      say(`The schema of ${automation} is set`);
      await Promise.all([load(), saved(), checkSchemas()]);
    });
  const remove = async (): Promise<void> => {
    const text = `Buckets of ${automation} are no longer checked. They stay as they are.`;
    if (!(await confirm("Remove the schema?", text, "Remove"))) return;
    if (await attempt(() => call("DELETE", path), `The schema of ${automation} is removed`)) {
      await Promise.all([saved(), checkSchemas()]);
      const here = route.peek();
      if (here.page === "inputs") go({ page: "inputs", automation: null });
    }
  };
  // What is typed stays in the editor, whatever the daemon says about it later.
  if (draft.typed === null) {
    if (wasTyped.current) serial.current++;
    shownText.current = JSON.stringify(checked?.jsonSchema ?? draft.document, null, 2);
  }
  wasTyped.current = draft.typed !== null;
  return (
    <>
      {row?.problem && <p class="warning">{row.problem}</p>}
      <div class="actions start">
        <button
          type="button"
          class="primary"
          disabled={!changed || problem !== ""}
          onClick={() => void save("")}
        >
          Save
        </button>
        <button type="button" disabled={!changed} onClick={() => void (stored === null ? setDraft(EMPTY) : load())}>
          Discard
        </button>
        {row?.source === "api" && (
          <button type="button" class="danger" onClick={() => void remove()}>
            Remove
          </button>
        )}
      </div>
      <div class="columns inputs">
        <section>
          <h2>Fields</h2>
          {typeof fields === "string" ? (
            <p class="empty">
              A table cannot show this schema: {fields}. Edit the JSON Schema instead.
            </p>
          ) : (
            <FieldTable form={fields} onChange={(form) => setDraft({ ...draft, document: form, typed: null })} />
          )}
        </section>
        <section>
          <h2>JSON Schema</h2>
          <EditorHost
            text={shownText.current}
            serial={serial.current}
            label={`JSON Schema of ${automation}`}
            onChange={(text) => setDraft((now) => now && typedDraft(text, now))}
          />
          {problem && (
            <p class="warning" role="alert">
              {problem}
            </p>
          )}
        </section>
      </div>
      <Violating checked={checked} />
      <Types automation={automation} jsonSchema={checked?.jsonSchema} defaults={defaults} />
      {conflict !== null && (
        <Dialog title="Stored buckets violate this schema" onClose={() => setConflict(null)}>
          <p>{conflict.message}</p>
          <div class="actions">
            <button type="button" onClick={() => setConflict(null)}>
              Cancel
            </button>
            <button type="button" onClick={() => void save("?existing=tolerate")}>
              Save, and let what they violate now stand
            </button>
            <button type="button" class="danger" onClick={() => void save("?force=true")}>
              Save anyway
            </button>
          </div>
        </Dialog>
      )}
    </>
  );
}

/** Return the fields of a document, or why a table cannot show them. */
function fieldsOf(document: unknown): FieldForm | string {
  if (isFieldForm(document)) return document;
  try {
    return toFields(document);
  } catch (problem) {
    if (problem instanceof NoFields) return problem.message;
    throw problem;
  }
}

/** Take over a JSON Schema that is typed; the field form stays where it can express it. */
function typedDraft(text: string, draft: Draft): Draft {
  try {
    const schema: unknown = JSON.parse(text);
    const found = draft.asFields ? fieldsOf(schema) : schema;
    return { ...draft, document: typeof found === "string" ? schema : found, typed: text };
  } catch {
    return { ...draft, typed: text };
  }
}

/** Have the daemon check a draft against the stored buckets; nothing is changed. */
function useDryRun(
  path: string,
  document: unknown,
  setProblem: (problem: string) => void,
): Checked | null {
  const [checked, setChecked] = useState<Checked | null>(null);
  const latest = useRef(0);
  const text = document === undefined ? null : JSON.stringify(document);
  useEffect(() => {
    if (text === null) return undefined;
    const mine = ++latest.current;
    const timer = window.setTimeout(
      () => {
        call("PUT", `${path}?dry_run=true`, { body: text }).then(
          ({ members }) => {
            if (mine !== latest.current) return;
            setProblem("");
            setChecked({
              details: members.details as Checked["details"],
              count: members.count as number,
              jsonSchema: members.json_schema,
            });
          },
          (problem: unknown) => {
            if (mine === latest.current) setProblem((problem as Error).message);
          },
        );
      },
      checked === null ? 0 : CHECK_MILLISECONDS,
    );
    return () => window.clearTimeout(timer);
  }, [text]);
  return checked;
}

function Violating({ checked }: { checked: Checked | null }): JSX.Element {
  if (checked === null) return <Loading what="the stored buckets" />;
  const { details, count } = checked;
  return (
    <section aria-label="Stored buckets that violate the schema" role="status">
      <h2>Stored buckets</h2>
      {count === 0 ? (
        <p class="good">No stored bucket violates this schema.</p>
      ) : (
        <>
          <p class="warning">{counted(count, "stored bucket")} would violate this schema.</p>
          <ul class="problems">
            {details.map(({ device, job, violations }) => (
              <li key={`${device}\n${job ?? ""}`}>
                <a href={fragmentOf({ page: "bucket", name: { device, job } })}>
                  {device}, {job ?? "(device)"}
                </a>
                {": "}
                {violations.map((v) => `${v.path || "the bucket"} ${v.message}`).join("; ")}
              </li>
            ))}
          </ul>
          {count > details.length && <p>The first {details.length} are listed.</p>}
        </>
      )}
    </section>
  );
}
