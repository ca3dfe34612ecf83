/** The history of a bucket: a slider over its revisions, what each changed, and undo. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import {
  readHistory,
  readRevision,
  revealKey,
  undo,
  type BucketState,
  type HistoryEntry,
} from "./bucket-data.js";
import { DiffView } from "./diff-view.js";
import { localTime } from "./format.js";
import { print, type JsonObject } from "./json.js";
import type { BucketName } from "./snippets.js";
import { Tree } from "./tree.js";
import { attempt, complain, Loading } from "./ui.js";

interface Props {
  name: BucketName;
  state: BucketState;
  /** Reads the bucket again after an undo. */
  reload: () => Promise<void>;
}


export function History({ name, state, reload }: Props): JSX.Element {
  const [entries, setEntries] = useState<HistoryEntry[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const [isKept, setKept] = useState(true);
  const [chosen, setChosen] = useState<number | null>(null);
  const [past, setPast] = useState<JsonObject | null>(null);
  const [whyNot, setWhyNot] = useState("");

  const read = async (cursor: string | null): Promise<void> => {
    try {
      const page = await readHistory(name, cursor);
      if (page === null) return setKept(false);
      setEntries((old) => (cursor === null ? page.entries : [...(old ?? []), ...page.entries]));
      setNext(page.next);
    } catch (problem) {
      complain(problem);
    }
  };
  useEffect(() => void read(null), [name.device, name.job, state.etag]);

  const entry = entries?.find(({ revision }) => revision === chosen) ?? entries?.[0];
  useEffect(() => {
    if (entry === undefined) return;
    let isGone = false;
    setWhyNot("");
    readRevision(name, entry.revision).then(
      (bucket) => !isGone && setPast(bucket),
      (problem: unknown) => {
        if (isGone) return;
        setPast(null);
        setWhyNot(problem instanceof Error ? problem.message : String(problem));
      },
    );
    return () => {
      isGone = true;
    };
  }, [entry?.revision, state.etag]);

  if (!isKept) return <p class="empty">This daemon keeps no history.</p>;
  if (entries === null) return <Loading what="the history" />;
  if (entry === undefined) return <p class="empty">There is no change in the history yet.</p>;
  const at = entries.indexOf(entry);
  const place = entries.length - 1 - at;
  return (
    <section class="history" aria-label="History">
      <label class="slider">
        <span>
          Revision {entry.revision}, {localTime(entry.at)}
        </span>
        <input
          type="range"
          min={0}
          max={entries.length - 1}
          value={place}
          aria-valuetext={`revision ${entry.revision}, ${localTime(entry.at)}`}
          onInput={(event) => {
            const index = entries.length - 1 - Number(event.currentTarget.value);
            setChosen(entries[index]?.revision ?? null);
          }}
        />
      </label>
      <p>
        <b>{whoText(entry)}</b> {whatText(entry)}
      </p>
      <div class="actions start">
        <button
          type="button"
          onClick={() =>
            void attempt(
              () => undo(name, entry.revision).then(reload),
              `The change of revision ${entry.revision} is taken back`,
            )
          }
        >
          Undo this change
        </button>
        {next !== null && (
          <button type="button" class="quiet" onClick={() => void read(next)}>
            Read older changes
          </button>
        )}
      </div>
      {whyNot && <p class="warning">{whyNot}</p>}
      {past !== null && (
        <div class="columns">
          <section>
            <h2>As it was</h2>
            <Tree
              value={past}
              changed={new Set(entry.set)}
              reveal={(key) => revealKey(name, key, entry.revision)}
            />
          </section>
          <section>
            <h2>Since then</h2>
            <DiffView before={print(past)} after={print(state.bucket)} />
          </section>
        </div>
      )}
      <ol class="changes" aria-label="Changes, newest first">
        {entries.map((row) => (
          <li key={row.revision} class={row === entry ? "chosen" : ""}>
            <button
              type="button"
              class="quiet"
              aria-current={row === entry ? "true" : undefined}
              onClick={() => setChosen(row.revision)}
            >
              r{row.revision} · {localTime(row.at)} · {whoText(row)} {whatText(row)}
            </button>
          </li>
        ))}
      </ol>
    </section>
  );
}

/** Return who made a change, in words. */
export function whoText({ by }: HistoryEntry): string {
  if (by.edit === true) return "An edit of the file";
  const user = String(by.user ?? "somebody");
  const run = by.run ? ` (${String(by.run)})` : "";
  return by.automation ? `${String(by.automation)} as ${user}${run}` : `${user}${run}`;
}

/** Return what a change did, in words. */
export function whatText({ set, removed, undoes }: HistoryEntry): string {
  const parts = [];
  if (set.length > 0) parts.push(`set ${some(set)}`);
  if (removed.length > 0) parts.push(`removed ${some(removed)}`);
  const text = parts.join(" and ") || "changed nothing";
  return undoes === undefined ? text : `${text}, taking back revision ${undoes}`;
}

function some(keys: string[]): string {
  const shown = keys.slice(0, 5).join(", ");
  return keys.length > 5 ? `${shown} and ${keys.length - 5} more` : shown;
}
