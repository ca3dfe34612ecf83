/** A bucket as JSON text: read, edited with a diff before it is saved, checked while it is typed. */

import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { call, Refused } from "./api.js";
import { patchBucket, readBucket, type BucketState } from "./bucket-data.js";
import type { Violation } from "./cells.js";
import { DiffView } from "./diff-view.js";
import type { JsonEditor } from "./editor.js";
import { EditorHost } from "./editor-host.js";
import { child, isMask, isObject, JsonError, parse, print, type Json } from "./json.js";
import { patchText } from "./patch.js";
import type { BucketName } from "./snippets.js";
import { attempt, complain, copy, Dialog, say } from "./ui.js";

const CHECK_MILLISECONDS = 300;

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

export function TextTab({ name, state, schema, automation, reload }: TextProps): JSX.Element {
  const [base, setBase] = useState<Base | null>(null);
  const [text, setText] = useState("");
  const [begun, setBegun] = useState({ text: "", serial: 0 });
  const [reviewing, setReviewing] = useState<Json | null>(null);
  const [found, setFound] = useState<Violation[]>([]);
  const editor = useRef<JsonEditor | null>(null);
  const stored = useMemo(() => print(state.bucket), [state]);
  const isEditing = base !== null;
  useCheck(isEditing ? text : null, base?.state.bucket ?? null, automation, setFound);
  const isBehind = isEditing && base.state.etag !== state.etag;

  const put = (shown: string): void => {
    setText(shown);
    setBegun(({ serial }) => ({ text: shown, serial: serial + 1 }));
  };
  const begin = async (revealed: boolean): Promise<void> => {
    try {
      const from = revealed ? await readBucket(name, true) : state;
      const shown = print(from.bucket);
      setBase({ state: from, text: shown });
      put(shown);
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
          <button type="button" onClick={() => rebase(base, text, state, setBase, put)}>
            Put my changes upon revision {state.revision}
          </button>
        </div>
      )}
      <EditorHost
        key={isEditing ? "edit" : "read"}
        text={isEditing ? begun.text : stored}
        serial={begun.serial}
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
