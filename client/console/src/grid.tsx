/** Devices × jobs: one cell for each bucket, drawn where it is seen. */

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { view, visibleRange, type Cell } from "./cells.js";
import { counted } from "./format.js";
import { HEAD, place, ROW, RowView, versionOf } from "./grid-row.js";
import {
  now,
  setVisibleDevices,
  table,
  tableLoaded,
  tableVersion,
  unnamedViolations,
} from "./live.js";
import { go } from "./router.js";
import { Loading } from "./ui.js";

const WIDE = { column: 132, name: 170 };
const NARROW = { column: 104, name: 104 };
const NARROW_BELOW = 600;

export const filter = signal("");
const scroll = signal({ top: 0, left: 0, width: 0, height: 0 });
const active = signal({ row: 0, column: 0 });

export function GridPage(): JSX.Element {
  void tableVersion.value;
  const structure = table.structure;
  const { view: found, shown } = useMemo(
    () => view(table, filter.value),
    [structure, filter.value],
  );
  const total = table.cells.size;
  return (
    <main class="grid-page">
      <h1 class="hidden">Devices and jobs</h1>
      <div class="toolbar">
        <label class="filter">
          <span class="hidden">Filter</span>
          <input
            type="search"
            id="filter"
            placeholder="Filter: device, job, automation, is:held, is:violating, is:damaged"
            value={filter.value}
            onInput={(event) => (filter.value = event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "ArrowDown") document.getElementById("grid")?.focus();
            }}
          />
        </label>
        <p class="count" role="status">
          {counted(found.devices.length, "device")}, {counted(found.count, "bucket")}
          {found.count < total && ` of ${total.toLocaleString("en")}`}
        </p>
        <Legend />
      </div>
      {[...unnamedViolations.value].map(([automation, count]) => (
        <p class="warning" key={automation}>
          {counted(count, "further bucket")} of {automation} violate its schema.
        </p>
      ))}
      {table.nameless.map((path) => (
        <p class="warning" key={path}>
          A damaged bucket whose name cannot be told from its file: {path}
        </p>
      ))}
      {!tableLoaded.value && total === 0 ? (
        <Loading what="the buckets" />
      ) : found.count === 0 ? (
        <p class="empty">
          {total === 0
            ? "There is no bucket yet. The first set of an automation creates one."
            : "No bucket matches the filter."}
        </p>
      ) : (
        <Grid devices={found.devices} jobs={found.jobs} shown={shown} />
      )}
    </main>
  );
}

function Legend(): JSX.Element {
  return (
    <ul class="legend" aria-label="Colours">
      <li class="held">◆ held</li>
      <li class="violating">▲ violates its schema</li>
      <li class="damaged">✕ damaged</li>
    </ul>
  );
}

interface GridProps {
  devices: string[];
  jobs: (string | null)[];
  shown: ReadonlySet<Cell>;
}

function Grid({ devices, jobs, shown }: GridProps): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  useScroll(box);
  const { top, left, width, height } = scroll.value;
  const measure = width > 0 && width < NARROW_BELOW ? NARROW : WIDE;
  const [firstRow, lastRow] = visibleRange(top, height - HEAD, ROW, devices.length, 4);
  const [firstColumn, lastColumn] = visibleRange(
    left,
    width - measure.name,
    measure.column,
    jobs.length,
    1,
  );
  const rows = devices.slice(firstRow, lastRow);
  const visible = rows.join("\n");
  useEffect(() => setVisibleDevices(new Set(rows)), [visible]);
  const columns = useMemo(
    () => jobs.slice(firstColumn, lastColumn),
    [jobs, firstColumn, lastColumn],
  );
  const at = clampActive(devices.length, jobs.length);
  const total = measure.name + jobs.length * measure.column;
  const canvas = { width: `${total}px`, height: `${HEAD + devices.length * ROW}px` };
  return (
    <div
      id="grid"
      class="grid"
      ref={box}
      role="grid"
      tabIndex={0}
      aria-label="Buckets by device and job"
      aria-rowcount={devices.length + 1}
      aria-colcount={jobs.length + 1}
      aria-activedescendant="active-cell"
      onKeyDown={(event) => onKey(event, box.current, devices, jobs, measure)}
      onClick={(event) => onClick(event, devices, jobs)}
    >
      <div class="canvas" role="presentation" style={canvas}>
        <div role="row" class="grid-head" aria-rowindex={1} style={{ width: `${total}px`, height: `${HEAD}px` }}>
          <div role="columnheader" class="corner" aria-colindex={1} style={{ width: `${measure.name}px` }}>
            Device
          </div>
          {columns.map((job, index) => (
            <div
              role="columnheader"
              class="job"
              key={job ?? ""}
              aria-colindex={firstColumn + index + 2}
              title={job ?? "The device bucket, shared by all jobs"}
              style={place(measure.name + (firstColumn + index) * measure.column, measure.column)}
            >
              {job ?? "(device)"}
            </div>
          ))}
        </div>
        {rows.map((device, index) => {
          const row = firstRow + index;
          return (
            <RowView
              key={device}
              device={device}
              row={row}
              columns={columns}
              firstColumn={firstColumn}
              measure={measure}
              width={total}
              shown={shown}
              activeColumn={at.row === row ? at.column : -1}
              version={versionOf(device, columns)}
              second={now.value}
            />
          );
        })}
      </div>
    </div>
  );
}

function clampActive(rows: number, columns: number): { row: number; column: number } {
  const { row, column } = active.value;
  return { row: Math.min(row, rows - 1), column: Math.min(column, columns - 1) };
}

function useScroll(box: { current: HTMLDivElement | null }): void {
  useEffect(() => {
    const element = box.current;
    if (element === null) return undefined;
    const take = (): void => {
      const { scrollTop: top, scrollLeft: left, clientWidth: width, clientHeight: height } = element;
      scroll.value = { top, left, width, height };
    };
    const observer = new ResizeObserver(take);
    observer.observe(element);
    element.addEventListener("scroll", take, { passive: true });
    element.scrollTo(scroll.peek().left, scroll.peek().top);
    take();
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", take);
    };
  }, []);
}

function onKey(
  event: KeyboardEvent,
  box: HTMLDivElement | null,
  devices: string[],
  jobs: (string | null)[],
  measure: { column: number; name: number },
): void {
  const { row, column } = clampActive(devices.length, jobs.length);
  const page = box === null ? 1 : Math.max(1, Math.floor((box.clientHeight - HEAD) / ROW) - 1);
  const moves: Record<string, [number, number]> = {
    ArrowDown: [row + 1, column],
    ArrowUp: [row - 1, column],
    ArrowRight: [row, column + 1],
    ArrowLeft: [row, column - 1],
    PageDown: [row + page, column],
    PageUp: [row - page, column],
    Home: event.ctrlKey ? [0, 0] : [row, 0],
    End: event.ctrlKey ? [devices.length - 1, jobs.length - 1] : [row, jobs.length - 1],
  };
  if (event.key === "Enter") {
    open(devices[row], jobs[column]);
    event.preventDefault();
    return;
  }
  const move = moves[event.key];
  if (move === undefined) return;
  event.preventDefault();
  const to = {
    row: Math.max(0, Math.min(move[0], devices.length - 1)),
    column: Math.max(0, Math.min(move[1], jobs.length - 1)),
  };
  active.value = to;
  if (box !== null) reveal(box, to, measure);
}

function reveal(
  box: HTMLDivElement,
  { row, column }: { row: number; column: number },
  measure: { column: number; name: number },
): void {
  const top = row * ROW;
  const left = column * measure.column;
  const bottom = top + ROW - (box.clientHeight - HEAD);
  const right = left + measure.column - (box.clientWidth - measure.name);
  box.scrollTo(
    Math.min(left, Math.max(right, box.scrollLeft)),
    Math.min(top, Math.max(bottom, box.scrollTop)),
  );
}

function onClick(event: MouseEvent, devices: string[], jobs: (string | null)[]): void {
  const target = event.target instanceof Element ? event.target.closest(".cell") : null;
  if (!(target instanceof HTMLElement) || target.dataset.device === undefined) return;
  const device = target.dataset.device;
  const job = target.dataset.job === "" ? null : (target.dataset.job as string);
  active.value = { row: devices.indexOf(device), column: jobs.indexOf(job) };
  open(device, job);
}

function open(device: string | undefined, job: string | null | undefined): void {
  if (device !== undefined && job !== undefined) go({ page: "bucket", name: { device, job } });
}
