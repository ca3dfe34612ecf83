/** The difference of two texts, line by line. */

export interface DiffLine {
  kind: "same" | "removed" | "added" | "skipped";
  text: string;
}

const CONTEXT = 3;
const MOST_CELLS = 4_000_000;

/** Return the lines of both texts with three lines of context around each difference. */
export function diffLines(before: string, after: string): DiffLine[] {
  return shorten(align(before.split("\n"), after.split("\n")));
}

function align(a: string[], b: string[]): DiffLine[] {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let tail = 0;
  while (tail < Math.min(a.length, b.length) - start && a.at(-1 - tail) === b.at(-1 - tail)) {
    tail++;
  }
  const middle = alignMiddle(a.slice(start, a.length - tail), b.slice(start, b.length - tail));
  return [
    ...a.slice(0, start).map(same),
    ...middle,
    ...a.slice(a.length - tail).map(same),
  ];
}

const same = (text: string): DiffLine => ({ kind: "same", text });
const removed = (text: string): DiffLine => ({ kind: "removed", text });
const added = (text: string): DiffLine => ({ kind: "added", text });

/** Align by the longest common subsequence; two long texts count as wholly different. */
function alignMiddle(a: string[], b: string[]): DiffLine[] {
  if (a.length * b.length > MOST_CELLS) return [...a.map(removed), ...b.map(added)];
  const width = b.length + 1;
  const lengths = new Uint32Array((a.length + 1) * width);
  const at = (i: number, j: number): number => lengths[i * width + j] as number;
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] =
        a[i] === b[j] ? at(i + 1, j + 1) + 1 : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const found: DiffLine[] = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      found.push(same(a[i++] as string));
      j++;
    } else if (j >= b.length || (i < a.length && at(i + 1, j) >= at(i, j + 1))) {
      found.push(removed(a[i++] as string));
    } else {
      found.push(added(b[j++] as string));
    }
  }
  return found;
}

function shorten(lines: DiffLine[]): DiffLine[] {
  const shown = new Uint8Array(lines.length);
  lines.forEach((line, at) => {
    if (line.kind !== "same") shown.fill(1, Math.max(0, at - CONTEXT), at + CONTEXT + 1);
  });
  const found: DiffLine[] = [];
  let hidden = 0;
  lines.forEach((line, at) => {
    if (shown[at]) {
      if (hidden > 0) found.push({ kind: "skipped", text: skippedText(hidden) });
      hidden = 0;
      found.push(line);
    } else {
      hidden++;
    }
  });
  if (hidden > 0 && found.length > 0) found.push({ kind: "skipped", text: skippedText(hidden) });
  return found;
}

const skippedText = (count: number): string =>
  count === 1 ? "one unchanged line" : `${count} unchanged lines`;
