/** One row of the grid, and its cells: drawn again only where something of them has changed. */

import { Component, type JSX } from "preact";
import type { Cell } from "./cells.js";
import { age, counted, size } from "./format.js";
import { now, table } from "./live.js";

export const ROW = 46;
export const HEAD = 34;
const FLASH_MILLISECONDS = 1000;

interface CellProps {
  cell: Cell;
  version: number;
  ageText: string;
  left: number;
  width: number;
  column: number;
  isActive: boolean;
}

/** One bucket. It is drawn again only where something of it has changed. */
class CellView extends Component<CellProps> {
  override shouldComponentUpdate(next: CellProps): boolean {
    return differ(this.props, next);
  }

  override render(): JSX.Element {
    const { cell, ageText, left, width, column, isActive } = this.props;
    const hold = table.heldBy(cell.device, cell.job);
    const classes = ["cell"];
    if (cell.damaged) classes.push("damaged");
    else if (cell.violations > 0) classes.push("violating");
    if (hold) classes.push("held");
    if (isActive) classes.push("active");
    // A cell that comes into sight later does not flash.
    if (Date.now() - cell.flashedAt < FLASH_MILLISECONDS) classes.push(cell.flashes % 2 ? "flash-a" : "flash-b");
    return (
      <div
        role="gridcell"
        id={isActive ? "active-cell" : undefined}
        class={classes.join(" ")}
        aria-colindex={column + 2}
        title={describe(cell, ageText)}
        style={place(left, width)}
        data-device={cell.device}
        data-job={cell.job ?? ""}
      >
        <span class="line">
          <b>{cell.damaged ? "✕ damaged" : ageText}</b>
          {cell.violations > 0 && <i class="mark">▲ {cell.violations}</i>}
        </span>
        <span class="line small">
          <span>
            {cell.size === null ? "" : size(cell.size)}
            {cell.revision > 0 && ` · r${cell.revision}`}
          </span>
          {hold && <i class="mark">◆ {hold.by.user}</i>}
        </span>
      </div>
    );
  }
}

export const place = (left: number, width: number): Record<string, string> => ({
  left: `${left}px`,
  width: `${width}px`,
});

interface RowProps {
  device: string;
  row: number;
  columns: (string | null)[];
  firstColumn: number;
  measure: { column: number; name: number };
  width: number;
  shown: ReadonlySet<Cell>;
  /** The column of the active cell, -1 in all other rows. */
  activeColumn: number;
  version: number;
  second: number;
}

/** The cells of one device that are seen. A row that was seen before costs nothing to scroll. */
export class RowView extends Component<RowProps> {
  override shouldComponentUpdate(next: RowProps): boolean {
    return differ(this.props, next);
  }

  override render(): JSX.Element {
    const { device, row, columns, firstColumn, measure, width } = this.props;
    return (
      <div
        role="row"
        class="grid-row"
        aria-rowindex={row + 2}
        style={{ top: `${HEAD + row * ROW}px`, width: `${width}px`, height: `${ROW}px` }}
      >
        <div
          role="rowheader"
          class="device"
          aria-colindex={1}
          title={device}
          style={{ width: `${measure.name}px` }}
        >
          {device}
        </div>
        {columns.map((job, position) => this.cell(job, firstColumn + position))}
      </div>
    );
  }

  private cell(job: string | null, column: number): JSX.Element {
    const { device, measure, shown, activeColumn } = this.props;
    const cell = table.at(device, job);
    const isActive = column === activeColumn;
    const left = measure.name + column * measure.column;
    if (cell === undefined || !shown.has(cell)) {
      return (
        <div
          role="gridcell"
          id={isActive ? "active-cell" : undefined}
          class={isActive ? "cell none active" : "cell none"}
          key={job ?? ""}
          aria-colindex={column + 2}
          aria-label={`${device}, ${job ?? "device bucket"}: no bucket`}
          style={place(left, measure.column)}
        />
      );
    }
    return (
      <CellView
        key={job ?? ""}
        cell={cell}
        version={cell.version}
        ageText={ageOf(cell)}
        column={column}
        isActive={isActive}
        left={left}
        width={measure.column}
      />
    );
  }
}

function differ<P extends object>(before: P, next: P): boolean {
  const old = before as Record<string, unknown>;
  return Object.entries(next).some(([name, value]) => old[name] !== value);
}

/** Return a number that changes with each cell of a row. */
export function versionOf(device: string, columns: readonly (string | null)[]): number {
  let sum = 0;
  for (const job of columns) sum += table.at(device, job)?.version ?? 0;
  return sum;
}

function describe(cell: Cell, ageText: string): string {
  const hold = table.heldBy(cell.device, cell.job);
  return [
    `${cell.device}, ${cell.job ?? "device bucket"}`,
    cell.damaged ? "damaged: it cannot be read" : `changed ${ageText}${ageText === "now" ? "" : " ago"}`,
    cell.size === null ? "" : size(cell.size),
    cell.revision > 0 ? `revision ${cell.revision}` : "",
    cell.violations > 0 ? counted(cell.violations, "schema violation") : "",
    hold ? `held by ${hold.by.user}, process ${hold.by.pid} on ${hold.host}` : "",
  ]
    .filter(Boolean)
    .join(", ");
}

function ageOf(cell: Cell): string {
  return cell.updatedAt === null ? "" : age((now.value - cell.updatedAt) / 1000);
}
