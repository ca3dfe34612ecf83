/** The devices × jobs table as data: rows of buckets, changed by events, filtered by words. */

export interface ListedBucket {
  device: string;
  job: string | null;
  automation: string | null;
  revision: number;
  size: number;
  updated_at: string;
}

export interface Hold {
  id: string;
  state: string;
  name: string;
  device: string;
  job: string | null;
  exclusive: boolean;
  label: string | null;
  since: string;
  connected: boolean;
  by: { user: string; uid: number; pid: number };
  host: string;
}

export interface Violation {
  path: string;
  message: string;
  keyword: string;
}

export interface BucketEvent {
  device: string;
  job: string | null;
  revision: number;
  set: Record<string, unknown>;
  removed: string[];
}

export class Cell {
  automation: string | null = null;
  revision = 0;
  size: number | null = null;
  /** Milliseconds since 1970 by the daemon's clock; null for a bucket that cannot be read. */
  updatedAt: number | null = null;
  damaged = false;
  violations = 0;
  /** Counts changes of what is shown. */
  version = 0;
  /** Counts changes of the bucket that came as events, for the flash. */
  flashes = 0;
  flashedAt = 0;

  constructor(
    readonly device: string,
    readonly job: string | null,
  ) {}
}

/** The column of device buckets. */
export const DEVICE_COLUMN = null;

export function cellKey(device: string, job: string | null): string {
  return JSON.stringify([device, job]);
}

/** Return names of the path of an unreadable file; null if they cannot be told from it. */
export function namesOfPath(path: string): { device: string; job: string | null } | null {
  const matched = /^devices\/([^/~]+)\/(?:device|jobs\/([^/~]+))\.json$/.exec(path);
  if (!matched) return null;
  try {
    const job = matched[2];
    return {
      device: decodeURIComponent(matched[1] as string),
      job: job === undefined ? null : decodeURIComponent(job),
    };
  } catch {
    return null;
  }
}

export class Table {
  readonly cells = new Map<string, Cell>();
  readonly holds = new Map<string, Hold>();
  /** Buckets that cannot be read and whose names cannot be told. */
  nameless: string[] = [];
  /** Counts changes of which cells there are, or of what a filter looks at. */
  structure = 0;
  private holdsByPlace = new Map<string, Hold[]>();

  at(device: string, job: string | null): Cell | undefined {
    return this.cells.get(cellKey(device, job));
  }

  private make(device: string, job: string | null): Cell {
    const key = cellKey(device, job);
    let cell = this.cells.get(key);
    if (cell === undefined) {
      this.cells.set(key, (cell = new Cell(device, job)));
      this.structure++;
    }
    return cell;
  }

  /** Take over a row of the list, unless an event has told something newer. */
  put(row: ListedBucket): void {
    const cell = this.make(row.device, row.job);
    if (cell.automation !== row.automation || cell.damaged) this.structure++;
    cell.automation = row.automation;
    cell.damaged = false;
    cell.size = row.size;
    cell.revision = row.revision;
    cell.updatedAt = Date.parse(row.updated_at);
    cell.version++;
  }

  putDamaged(path: string): Cell | null {
    const found = namesOfPath(path);
    if (found === null) {
      this.nameless = [...this.nameless, path];
      return null;
    }
    const cell = this.make(found.device, found.job);
    cell.damaged = true;
    cell.version++;
    this.structure++;
    return cell;
  }

  /** Remove what a complete list did not have. */
  keepOnly(keys: ReadonlySet<string>): void {
    for (const key of [...this.cells.keys()]) {
      if (!keys.has(key)) this.cells.delete(key);
    }
    this.structure++;
  }

  /** Apply a change; its size is not told, so it is null until the list is read again. */
  apply(event: BucketEvent, now: number): Cell | null {
    const { device, job } = event;
    if (event.revision === 0) {
      this.cells.delete(cellKey(device, job));
      this.structure++;
      return null;
    }
    const cell = this.make(device, job);
    cell.revision = event.revision;
    cell.updatedAt = now;
    if (cell.damaged) this.structure++;
    cell.damaged = false;
    cell.version++;
    cell.flashes++;
    cell.flashedAt = now;
    return cell;
  }

  setHold(hold: Hold, isThere: boolean): void {
    const place = cellKey(hold.device, hold.job);
    this.holds.delete(hold.id);
    if (isThere) this.holds.set(hold.id, hold);
    const held = [...this.holds.values()].filter(
      (other) => cellKey(other.device, other.job) === place && other.state === "held",
    );
    if (held.length > 0) this.holdsByPlace.set(place, held);
    else this.holdsByPlace.delete(place);
    this.touchHeld(hold);
  }

  clearHolds(): void {
    const gone = [...this.holds.values()];
    this.holds.clear();
    this.holdsByPlace.clear();
    for (const hold of gone) this.touchHeld(hold);
  }

  private touchHeld(hold: Hold): void {
    this.structure++;
    if (hold.job !== null) {
      const cell = this.at(hold.device, hold.job);
      if (cell) cell.version++;
      return;
    }
    for (const cell of this.cells.values()) {
      if (cell.device === hold.device) cell.version++;
    }
  }

  /** Return who holds a bucket, or its whole device. */
  heldBy(device: string, job: string | null): Hold | undefined {
    const ofDevice = this.holdsByPlace.get(cellKey(device, null))?.[0];
    return this.holdsByPlace.get(cellKey(device, job))?.[0] ?? ofDevice;
  }

  setViolations(automation: string, counts: ReadonlyMap<string, number>): void {
    for (const [key, cell] of this.cells) {
      if (cell.automation !== automation) continue;
      const count = counts.get(key) ?? 0;
      if (count === cell.violations) continue;
      cell.violations = count;
      cell.version++;
      this.structure++;
    }
  }
}

/** The states that `is:…` filters by. */
export const STATES = ["held", "violating", "damaged"] as const;

export function matches(table: Table, cell: Cell, words: readonly string[]): boolean {
  return words.every((word) => {
    if (word === "is:held") return table.heldBy(cell.device, cell.job) !== undefined;
    if (word === "is:violating") return cell.violations > 0;
    if (word === "is:damaged") return cell.damaged;
    return [cell.device, cell.job ?? "(device)", cell.automation ?? ""].some((name) =>
      name.toLowerCase().includes(word),
    );
  });
}

export interface View {
  devices: string[];
  jobs: (string | null)[];
  /** How many cells match. */
  count: number;
}

const byName = new Intl.Collator("en", { numeric: true }).compare;

/** Return the devices and jobs with a cell that all words of a filter match. */
export function view(table: Table, filter: string): { view: View; shown: ReadonlySet<Cell> } {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const devices = new Set<string>();
  const jobs = new Set<string | null>();
  const shown = new Set<Cell>();
  for (const cell of table.cells.values()) {
    if (!matches(table, cell, words)) continue;
    devices.add(cell.device);
    jobs.add(cell.job);
    shown.add(cell);
  }
  const named = [...jobs].filter((job): job is string => job !== null).sort(byName);
  return {
    view: {
      devices: [...devices].sort(byName),
      jobs: jobs.has(null) ? [null, ...named] : named,
      count: shown.size,
    },
    shown,
  };
}

/** Return the part of `count` items of one size that is visible, with a margin. */
export function visibleRange(
  offset: number,
  extent: number,
  size: number,
  count: number,
  margin: number,
): [number, number] {
  const first = Math.max(0, Math.floor(offset / size) - margin);
  const last = Math.min(count, Math.ceil((offset + extent) / size) + margin);
  return [Math.min(first, count), Math.max(last, Math.min(first, count))];
}
