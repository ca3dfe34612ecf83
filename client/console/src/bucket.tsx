/** The page of one bucket: tree and text, edit with a diff, history, live changes. */

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { call, consoleState, Refused } from "./api.js";
import {
  deleteBucket,
  patchBucket,
  readBucket,
  revealKey,
  type BucketState,
} from "./bucket-data.js";
import { cellKey, type Violation } from "./cells.js";
import { DiffView } from "./diff-view.js";
import type { JsonEditor } from "./editor.js";
import { EditorHost } from "./editor-host.js";
import { age, size } from "./format.js";
import { History } from "./history.js";
import { child, isMask, isObject, JsonError, parse, print, type Json } from "./json.js";
import { now, onBucket, table, tableVersion, violations } from "./live.js";
import { patchText } from "./patch.js";
import { curl, python, typescript, type BucketName } from "./snippets.js";
import { Tree } from "./tree.js";
import { attempt, complain, confirm, copy, Dialog, Loading, say } from "./ui.js";

const FLASH_MILLISECONDS = 4000;
const CHECK_MILLISECONDS = 300;
type Tab = "tree" | "text" | "history";
const TABS: [Tab, string][] = [
  ["tree", "Tree"],
  ["text", "Text"],
  ["history", "History"],
];

export function BucketPage({ name }: { name: BucketName }): JSX.Element {
  const [state, setState] = useState<BucketState | null>(null);
  const [problem, setProblem] = useState<Refused | null>(null);
  const [changed, setChanged] = useState<ReadonlySet<string>>(new Set());
  const [tab, setTab] = useState<Tab>("tree");
  const [schema, setSchema] = useState<unknown>(undefined);
  void tableVersion.value;
  const cell = table.at(name.device, name.job);
  const automation = cell?.automation ?? null;

  const reload = async (): Promise<void> => {
    try {
      setState(await readBucket(name));
      setProblem(null);
    } catch (cause) {
      if (cause instanceof Refused) setProblem(cause);
      else complain(cause);
    }
  };
  useEffect(() => {
    void reload();
    return followChanges(name, reload, setChanged);
  }, []);
  useEffect(() => {
    if (automation === null) return setSchema(undefined);
    call("GET", `/v1/schemas/${encodeURIComponent(automation)}`).then(
      ({ members }) => setSchema(members.json_schema ?? undefined),
      () => setSchema(undefined),
    );
  }, [automation]);

  return (
    <main class="bucket-page">
      <Heading name={name} state={state} />
      {problem && (
        <div class="warning" role="alert">
          <p>{problem.message}</p>
          {problem.code === "bucket_corrupt" && (
            <p>History and the files in the quarantine keep what can be brought back.</p>
          )}
        </div>
      )}
      <Violations name={name} />
      <div class="tabs" role="tablist" aria-label="Views of the bucket">
        {TABS.map(([id, label]) => (
          <button
            type="button"
            role="tab"
            id={`tab-${id}`}
            key={id}
            aria-selected={tab === id}
            aria-controls="panel"
            tabIndex={tab === id ? 0 : -1}
            onClick={() => setTab(id)}
            onKeyDown={(event) => moveTab(event, tab, setTab)}
          >
            {label}
          </button>
        ))}
      </div>
      <div id="panel" role="tabpanel" aria-labelledby={`tab-${tab}`}>
        {state === null ? (
          problem === null && <Loading what="the bucket" />
        ) : tab === "tree" ? (
          <Tree value={state.bucket} changed={changed} reveal={(key) => revealKey(name, key)} />
        ) : tab === "text" ? (
          <TextTab
            name={name}
            state={state}
            schema={schema}
            automation={automation}
            reload={reload}
          />
        ) : (
          <History name={name} state={state} reload={reload} />
        )}
      </div>
    </main>
  );
}

function moveTab(event: KeyboardEvent, tab: Tab, setTab: (tab: Tab) => void): void {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step === undefined) return;
  const at = TABS.findIndex(([id]) => id === tab);
  const [to] = TABS[(at + step + TABS.length) % TABS.length] as [Tab, string];
  setTab(to);
  document.getElementById(`tab-${to}`)?.focus();
}

/** Read the bucket again after its changes, and highlight the keys that they set. */
function followChanges(
  name: BucketName,
  reload: () => Promise<void>,
  setChanged: (keys: ReadonlySet<string>) => void,
): () => void {
  const recent = new Map<string, number>();
  let timer = 0;
  let reading = false;
  let isStale = false;
  const show = (): void => {
    const since = Date.now() - FLASH_MILLISECONDS;
    for (const [key, at] of recent) if (at < since) recent.delete(key);
    setChanged(new Set(recent.keys()));
    window.clearTimeout(timer);
    if (recent.size > 0) timer = window.setTimeout(show, FLASH_MILLISECONDS);
  };
  const read = async (): Promise<void> => {
    if (reading) {
      isStale = true;
      return;
    }
    reading = true;
    do {
      isStale = false;
      await reload();
    } while (isStale);
    reading = false;
    show();
  };
  const stop = onBucket((event) => {
    if (event.device !== name.device || event.job !== name.job) return;
    for (const key of Object.keys(event.set)) recent.set(key, Date.now());
    void read();
  });
  return () => {
    stop();
    window.clearTimeout(timer);
  };
}

function Heading({ name, state }: { name: BucketName; state: BucketState | null }): JSX.Element {
  const cell = table.at(name.device, name.job);
  const hold = table.heldBy(name.device, name.job);
  const facts = [
    state === null ? "" : state.etag === null ? "not stored" : `revision ${state.revision}`,
    cell?.size ? size(cell.size) : "",
    cell?.updatedAt ? `changed ${age((now.value - cell.updatedAt) / 1000)} ago` : "",
    cell?.automation ? `automation ${cell.automation}` : "",
    hold ? `held by ${hold.by.user}, process ${hold.by.pid}${hold.label ? ` (${hold.label})` : ""}` : "",
  ].filter(Boolean);
  return (
    <header class="heading">
      <div>
        <h1>
          {name.device} <span class="dim">/</span> {name.job ?? "device bucket"}
        </h1>
        <p class="facts">{facts.join(" · ").replace("changed now ago", "changed now")}</p>
        {state?.recoveredFrom && (
          <p class="warning">
            Its file could not be read, so revision {state.recoveredFrom.revision} took its place:{" "}
            {state.recoveredFrom.reason}
          </p>
        )}
      </div>
      <div class="actions">
        <CopyAs name={name} />
        <button
          type="button"
          class="danger"
          disabled={state === null || state.etag === null}
          onClick={() => void remove(name, state)}
        >
          Delete
        </button>
      </div>
    </header>
  );
}

async function remove(name: BucketName, state: BucketState | null): Promise<void> {
  const what = `the bucket of ${name.device}, ${name.job ?? "(device)"}`;
  const text = `This removes ${what} with all its keys. The trash keeps it where the daemon has one.`;
  if (!(await confirm("Delete the bucket?", text, "Delete"))) return;
  await attempt(() => deleteBucket(name, state?.etag ?? null), "The bucket is deleted");
}

function CopyAs({ name }: { name: BucketName }): JSX.Element {
  const socket = consoleState.value?.socket ?? "";
  const forms: [string, string][] = [
    ["curl", curl(name, socket)],
    ["Python", python(name, socket)],
    ["TypeScript", typescript(name, socket)],
  ];
  return (
    <>
      {forms.map(([label, text]) => (
        <button type="button" key={label} onClick={() => void copy(text, label)}>
          Copy as {label}
        </button>
      ))}
    </>
  );
}

function Violations({ name }: { name: BucketName }): JSX.Element | null {
  const found = violations.value.get(cellKey(name.device, name.job)) ?? [];
  if (found.length === 0) return null;
  return (
    <div class="warning">
      <p>The bucket violates its schema:</p>
      <ul>
        {found.map((row) => (
          <li key={row.path + row.message}>
            <code>{row.path || "the bucket"}</code> {row.message}
          </li>
        ))}
      </ul>
    </div>
  );
}

interface TextProps {
  name: BucketName;
  state: BucketState;
  schema: unknown;
  automation: string | null;
  reload: () => Promise<void>;
}

/** What an edit began from. */
interface Base {
  state: BucketState;
  text: string;
}

function TextTab({ name, state, schema, automation, reload }: TextProps): JSX.Element {
  const [base, setBase] = useState<Base | null>(null);
  const [text, setText] = useState("");
  const [reviewing, setReviewing] = useState<Json | null>(null);
  const [found, setFound] = useState<Violation[]>([]);
  const editor = useRef<JsonEditor | null>(null);
  const stored = useMemo(() => print(state.bucket), [state]);
  const isEditing = base !== null;
  useCheck(isEditing ? text : null, base?.state.bucket ?? null, automation, setFound);
  const isBehind = isEditing && base.state.etag !== state.etag;

  const begin = async (revealed: boolean): Promise<void> => {
    try {
      const from = revealed ? await readBucket(name, true) : state;
      const begun = print(from.bucket);
      setBase({ state: from, text: begun });
      setText(begun);
    } catch (problem) {
      complain(problem);
    }
  };
  const review = (): void => {
    try {
      const value = parse(text);
      if (!isObject(value)) throw new JsonError("the bucket must be an object, {…}", 0);
      setReviewing(value);
    } catch (problem) {
      complain(new Error(`cannot save: ${(problem as Error).message}`));
    }
  };
  const save = async (): Promise<void> => {
    if (base === null || reviewing === null) return;
    const edited = reviewing;
    setReviewing(null);
    const done = await attempt(async () => {
      try {
        await patchBucket(name, patchText(base.state.bucket, edited), base.state.etag, automation);
      } catch (problem) {
        if (problem instanceof Refused && problem.code === "schema_violation") {
          setFound(problem.details as Violation[]);
        }
        throw problem;
      }
    }, "Saved");
    if (!done) return;
    setBase(null);
    setFound([]);
    await reload();
  };
  return (
    <section class="text-tab" aria-label="JSON text">
      <div class="actions start">
        {!isEditing && (
          <>
            <button type="button" class="primary" onClick={() => void begin(false)}>
              Edit
            </button>
            {masksIn(state.bucket, "").length > 0 && (
              <button type="button" onClick={() => void begin(true)}>
                Edit with secrets shown
              </button>
            )}
            <button type="button" onClick={() => void copy(stored, "JSON")}>
              Copy JSON
            </button>
          </>
        )}
        {isEditing && (
          <>
            <button type="button" class="primary" disabled={text === base.text} onClick={review}>
              Review and save …
            </button>
            <button
              type="button"
              onClick={() => {
                setBase(null);
                setFound([]);
              }}
            >
              Discard
            </button>
          </>
        )}
      </div>
      {isBehind && (
        <div class="warning" role="alert">
          <p>The bucket has changed since you began; it is at revision {state.revision} now.</p>
          <button type="button" onClick={() => rebase(base, text, state, setBase, setText)}>
            Put my changes upon revision {state.revision}
          </button>
        </div>
      )}
      <EditorHost
        key={isEditing ? "edit" : "read"}
        text={isEditing ? text : stored}
        label={`JSON of ${name.device}, ${name.job ?? "device bucket"}`}
        readOnly={!isEditing}
        schema={schema}
        violations={found}
        onChange={isEditing ? setText : () => undefined}
        onReady={(made) => {
          editor.current = made;
          if (isEditing) made.focus();
        }}
      />
      {found.length > 0 && (
        <ul class="problems" aria-label="Schema violations">
          {found.map((row) => (
            <li key={row.path + row.message}>
              <button type="button" class="quiet" onClick={() => editor.current?.reveal(row.path)}>
                {row.path || "the bucket"}
              </button>{" "}
              {row.message}
            </li>
          ))}
        </ul>
      )}
      {reviewing !== null && base !== null && (
        <Dialog title="Save these changes?" wide onClose={() => setReviewing(null)}>
          <DiffView before={base.text} after={print(reviewing)} />
          <div class="actions">
            <button type="button" onClick={() => setReviewing(null)}>
              Back
            </button>
            <button type="button" class="primary" onClick={() => void save()}>
              Save
            </button>
          </div>
        </Dialog>
      )}
    </section>
  );
}

/** Move an edit to the newest state: keys that were edited keep the edit, all others are new. */
function rebase(
  base: Base,
  text: string,
  state: BucketState,
  setBase: (base: Base) => void,
  setText: (text: string) => void,
): void {
  try {
    const edited = parse(text);
    if (!isObject(edited)) throw new JsonError("the bucket must be an object, {…}", 0);
    const merged = new Map(state.bucket);
    const old = base.state.bucket;
    for (const key of new Set([...old.keys(), ...edited.keys()])) {
      const [was, is] = [old.get(key), edited.get(key)];
      if (is === undefined) merged.delete(key);
      else if (was === undefined || print(was) !== print(is)) merged.set(key, is);
    }
    setBase({ state, text: print(state.bucket) });
    setText(print(merged));
    say(`Your changes are upon revision ${state.revision} now; review them before you save`);
  } catch (problem) {
    complain(new Error(`cannot put the changes upon the new state: ${(problem as Error).message}`));
  }
}

/** Have the daemon check a text by the schema while it is typed; nothing is stored. */
function useCheck(
  text: string | null,
  stored: Json | null,
  automation: string | null,
  setFound: (found: Violation[]) => void,
): void {
  useEffect(() => {
    if (text === null || automation === null) return undefined;
    const timer = window.setTimeout(() => {
      const request = checkOf(text, stored);
      if (request === null) return;
      const target = `/v1/schemas/${encodeURIComponent(automation)}/check`;
      call("POST", target, { body: request.body }).then(({ members }) => {
        const found = members.violations as Violation[];
        // What stands below a mask is not the value, so it violates nothing.
        setFound(found.filter(({ path }) => !request.masked.some((at) => isWithin(path, at))));
      }, () => undefined);
    }, CHECK_MILLISECONDS);
    return () => window.clearTimeout(timer);
  }, [text, automation]);
}

/** Return the request of a check and the places of masks; null while the text is no object. */
function checkOf(text: string, stored: Json | null): { body: string; masked: string[] } | null {
  try {
    const bucket = parse(text);
    if (!isObject(bucket)) return null;
    const members: [string, Json][] = [["bucket", bucket]];
    if (stored !== null) members.push(["stored", stored]);
    return { body: print(new Map(members), 0), masked: masksIn(bucket, "") };
  } catch {
    return null;
  }
}

function masksIn(value: Json, pointer: string): string[] {
  if (isMask(value)) return [pointer];
  if (Array.isArray(value)) return value.flatMap((v, at) => masksIn(v, child(pointer, String(at))));
  if (!isObject(value)) return [];
  return [...value].flatMap(([key, item]) => masksIn(item, child(pointer, key)));
}

const isWithin = (path: string, place: string): boolean =>
  path === place || path.startsWith(`${place}/`);
