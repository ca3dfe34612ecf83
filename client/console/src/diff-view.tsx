/** The difference of two texts, to be read before it is saved. */

import type { JSX } from "preact";
import { diffLines } from "./diff.js";

const SIGNS = { same: " ", removed: "-", added: "+", skipped: "…" };

export function DiffView({ before, after }: { before: string; after: string }): JSX.Element {
  const lines = diffLines(before, after);
  if (lines.length === 0) return <p class="empty">No difference.</p>;
  return (
    <div class="diff" role="region" aria-label="Difference" tabIndex={0}>
      {lines.map((line, at) => (
        <div class={line.kind} key={at}>
          <span class="sign" aria-hidden="true">
            {SIGNS[line.kind]}
          </span>
          {line.kind === "removed" && <span class="hidden">removed: </span>}
          {line.kind === "added" && <span class="hidden">added: </span>}
          <code>{line.text}</code>
        </div>
      ))}
    </div>
  );
}
