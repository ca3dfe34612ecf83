/** Small parts that several pages use: dialogs, notices, the lock, copying. */

import { signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { consoleState, Refused, setLocked } from "./api.js";

/** The last thing that was done or refused, read out to those who do not see it. */
export const notice = signal<{ kind: "done" | "refused"; text: string; details: string[] } | null>(
  null,
);
let noticeTimer = 0;

export function say(text: string): void {
  notice.value = { kind: "done", text, details: [] };
  window.clearTimeout(noticeTimer);
  noticeTimer = window.setTimeout(() => (notice.value = null), 6000);
}

/** Show why something was refused, in the words of whoever refused it. */
export function complain(problem: unknown): void {
  window.clearTimeout(noticeTimer);
  const refused = problem instanceof Refused ? problem : null;
  const text = problem instanceof Error ? problem.message : String(problem);
  notice.value = { kind: "refused", text, details: (refused?.details ?? []).map(detailText) };
}

export function detailText(detail: unknown): string {
  if (typeof detail !== "object" || detail === null) return String(detail);
  const row = detail as Record<string, unknown>;
  if (typeof row.message === "string") return `${String(row.path || "the bucket")} ${row.message}`;
  if (typeof row.key === "string") return `${row.key}: changed by revision ${String(row.revision)}`;
  if (row.by && typeof row.by === "object") {
    const by = row.by as Record<string, unknown>;
    return `${String(by.user)}, process ${String(by.pid)}, since ${String(row.since)}`;
  }
  return JSON.stringify(detail);
}

export function Notice(): JSX.Element {
  const shown = notice.value;
  return (
    <div class="notices" aria-live="polite" role="status">
      {shown && (
        <div class={`notice ${shown.kind}`}>
          <p>{shown.text}</p>
          {shown.details.length > 0 && (
            <ul>
              {shown.details.slice(0, 20).map((line) => (
                <li key={line}>{line}</li>
              ))}
            </ul>
          )}
          <button type="button" class="quiet" onClick={() => (notice.value = null)}>
            Close
          </button>
        </div>
      )}
    </div>
  );
}

/** A modal dialog: Escape and the first button close it; the focus goes back where it was. */
export function Dialog(props: {
  title: string;
  wide?: boolean;
  onClose: () => void;
  children: ComponentChildren;
}): JSX.Element {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    element.current?.showModal();
    return () => (before instanceof HTMLElement ? before.focus() : undefined);
  }, []);
  return (
    <dialog
      ref={element}
      class={props.wide ? "wide" : ""}
      aria-labelledby="dialog-title"
      onCancel={(event) => {
        event.preventDefault();
        props.onClose();
      }}
    >
      <h2 id="dialog-title">{props.title}</h2>
      {props.children}
    </dialog>
  );
}

interface Question {
  title: string;
  text: string;
  action: string;
  choose: (yes: boolean) => void;
}

const question = signal<Question | null>(null);

/** Ask before something is done; resolve to whether it may be done. */
export function confirm(title: string, text: string, action: string): Promise<boolean> {
  return new Promise((resolve) => {
    question.value = {
      title,
      text,
      action,
      choose: (yes) => {
        question.value = null;
        resolve(yes);
      },
    };
  });
}

export function Questions(): JSX.Element | null {
  const asked = question.value;
  if (asked === null) return null;
  return (
    <Dialog title={asked.title} onClose={() => asked.choose(false)}>
      <p>{asked.text}</p>
      <div class="actions">
        <button type="button" onClick={() => asked.choose(false)}>
          Cancel
        </button>
        <button type="button" class="primary" onClick={() => asked.choose(true)}>
          {asked.action}
        </button>
      </div>
    </Dialog>
  );
}

/** Report whether changes are allowed now; ask to unlock the console first where it is locked. */
export async function mayChange(): Promise<boolean> {
  const state = consoleState.value;
  if (state === null) return false;
  if (state.unlocked_seconds > 0) return true;
  if (state.read_only) {
    complain(new Error("cannot change anything: the console was started with --read-only"));
    return false;
  }
  const text =
    "The console is locked, so that nothing is changed by accident. Unlocked, it locks itself " +
    "again 15 minutes after the last change.";
  if (!(await confirm("Unlock the console?", text, "Unlock and go on"))) return false;
  try {
    await setLocked(false);
    return true;
  } catch (problem) {
    complain(problem);
    return false;
  }
}

/** Run a change, and show why it was refused; report whether it was made. */
export async function attempt(change: () => Promise<unknown>, done = ""): Promise<boolean> {
  if (!(await mayChange())) return false;
  try {
    await change();
    if (done) say(done);
    return true;
  } catch (problem) {
    complain(problem);
    return false;
  }
}

export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied`);
  } catch {
    complain(new Error(`cannot copy: the browser does not allow it; select the text instead`));
  }
}

export function Loading(props: { what: string }): JSX.Element {
  return (
    <p class="loading" role="status">
      Reading {props.what} …
    </p>
  );
}
