/** The overview: charts, the disk, problems with their cures, trash, holds, contexts. */

import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { call, daemonAway, pages, Refused } from "./api.js";
import type { Chart } from "./charts.js";
import { age, localTime, size } from "./format.js";
import { now, onOther, table, tableVersion } from "./live.js";
import { figures, parseMetrics, UNKNOWN_FIGURES, type Figures, type Sample } from "./metrics.js";
import { attempt, complain, confirm, Loading } from "./ui.js";

const EVERY = 2000;
const KEPT = 150;

const readings = signal<Figures[]>([]);
let last: { sample: Sample; at: number } | null = null;

/** Read the metrics every two seconds while the page is seen, for the charts. */
export function followMetrics(): void {
  const read = async (): Promise<void> => {
    if (document.hidden) return;
    const at = Date.now() / 1000;
    let next: Figures = { at, ...UNKNOWN_FIGURES };
    try {
      const sample = parseMetrics((await call("GET", "/metrics")).text);
      if (last !== null) next = figures(last.sample, sample, at - last.at, at);
      last = { sample, at };
    } catch {
      // A gap in the charts shows when the daemon was away.
      last = null;
    }
    readings.value = [...readings.value, next].slice(-KEPT);
  };
  window.setInterval(() => void read(), EVERY);
  void read();
}

export function OverviewPage(): JSX.Element {
  return (
    <main class="overview-page">
      <h1>Overview</h1>
      <section class="charts" aria-label="The last minutes">
        <ChartBox title="Requests" unit="per second" pick={(row) => row.requests} />
        <ChartBox title="Commits" unit="per second" pick={(row) => row.commits} />
        <ChartBox title="Sync time" unit="ms" pick={(row) => row.syncMilliseconds} />
        <ChartBox title="Watchers" unit="streams" pick={(row) => row.watchers} />
      </section>
      <Problems />
      <Holds />
      <Contexts />
      <Trash />
    </main>
  );
}

function ChartBox(props: {
  title: string;
  unit: string;
  pick: (row: Figures) => number | null;
}): JSX.Element {
  const { title, unit, pick } = props;
  const host = useRef<HTMLDivElement>(null);
  const chart = useRef<Chart | null>(null);
  const rows = readings.value;
  const value = rows.length > 0 ? pick(rows[rows.length - 1] as Figures) : null;
  const text = value === null ? "–" : value.toLocaleString("en", { maximumFractionDigits: 2 });
  const draw = (): void =>
    chart.current?.update(
      readings.peek().map((row) => row.at),
      readings.peek().map(pick),
    );
  useEffect(() => {
    let isGone = false;
    void import("./charts.js").then(({ drawChart }) => {
      if (isGone || host.current === null) return;
      chart.current = drawChart(host.current, unit);
      draw();
    });
    return () => {
      isGone = true;
      chart.current?.destroy();
      chart.current = null;
    };
  }, []);
  useEffect(draw, [rows]);
  return (
    <figure class="chart" aria-label={`${title}: ${text} ${unit}`}>
      <figcaption>
        {title} <b>{text}</b> <span class="dim">{unit}</span>
      </figcaption>
      <div ref={host} aria-hidden="true" />
    </figure>
  );
}

interface Finding {
  level: "ok" | "warning" | "problem" | "unknown";
  about: string;
  what: string;
  fix: string;
}

const LEVELS = { ok: "✓", warning: "▲", problem: "✕", unknown: "?" };

function Problems(): JSX.Element {
  const [found, setFound] = useState<Finding[] | null>(null);
  const away = daemonAway.value;
  const read = (): Promise<void> =>
    call("GET", "/console/doctor").then(
      ({ members }) => setFound(members.findings as Finding[]),
      complain,
    );
  useEffect(() => void read(), [away === null]);
  const shown = found?.filter(({ level }) => level !== "ok") ?? [];
  const fine = found?.filter(({ level }) => level === "ok") ?? [];
  return (
    <>
      <Facts disk={found?.find(({ about }) => about === "disk")?.what ?? null} />
      <section aria-label="Problems">
      <div class="section-head">
        <h2>Problems</h2>
        <button type="button" onClick={() => void read()}>
          Look again
        </button>
      </div>
      {found === null ? (
        <Loading what="what doctor finds" />
      ) : (
        <>
          {shown.length === 0 && <p class="good">✓ No problem was found.</p>}
          <FindingList findings={shown} />
          <details>
            <summary>What is in order ({fine.length})</summary>
            <FindingList findings={fine} />
          </details>
        </>
      )}
      </section>
    </>
  );
}

interface DaemonStatus {
  version: string;
  uptime_seconds: number;
  durability: string;
  store: { engine: string };
  counts: { devices: number; buckets: number; device_buckets: number; connections: number };
}

function Facts({ disk }: { disk: string | null }): JSX.Element {
  const [status, setStatus] = useState<DaemonStatus | null>(null);
  const rows = readings.value.length;
  // The figures follow the charts, at a fifth of their pace.
  useEffect(() => {
    call("GET", "/v1/status").then(
      ({ members }) => setStatus(members as unknown as DaemonStatus),
      () => undefined,
    );
  }, [Math.floor(rows / 5)]);
  const facts: [string, string][] = [["Disk", disk ?? "…"]];
  if (status !== null) {
    const { counts, store } = status;
    facts.push(
      ["Daemon", `${status.version}, up ${age(status.uptime_seconds)}`],
      ["Store", `${store.engine}, ${status.durability}`],
      ["Devices", counts.devices.toLocaleString("en")],
      ["Buckets", (counts.buckets + counts.device_buckets).toLocaleString("en")],
      ["Connections", counts.connections.toLocaleString("en")],
    );
  }
  return (
    <section aria-label="The daemon">
      <dl class="facts-list">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function FindingList({ findings }: { findings: Finding[] }): JSX.Element {
  return (
    <ul class="findings">
      {findings.map(({ level, about, what, fix }) => (
        <li key={about + what} class={level}>
          <span aria-hidden="true">{LEVELS[level]}</span> <b>{about}</b>{" "}
          <span class="hidden">({level})</span> {what}
          {fix && <p class="fix">→ {fix}</p>}
        </li>
      ))}
    </ul>
  );
}

function Holds(): JSX.Element {
  void tableVersion.value;
  const rows = [...table.holds.values()];
  const end = async (id: string, who: string): Promise<void> => {
    const text = `${who} is told, and its later writes with this hold are refused.`;
    if (!(await confirm("Break the hold?", text, "Break the hold"))) return;
    await attempt(() => call("DELETE", `/v1/holds/${encodeURIComponent(id)}`), "The hold is ended");
  };
  return (
    <section aria-label="Holds">
      <h2>Holds</h2>
      {rows.length === 0 ? (
        <p class="empty">Nobody holds anything.</p>
      ) : (
        <DataTable
          label="Holds"
          columns={["Device", "Job", "State", "By", "Since", ""]}
          rows={rows.map((hold) => {
            const who = `${hold.by.user}, process ${hold.by.pid} on ${hold.host}`;
            return [
              hold.device,
              hold.job ?? "(device)",
              hold.exclusive && hold.state === "held" ? "held, exclusive" : hold.state,
              hold.label ? `${who} (${hold.label})` : who,
              `${age((now.value - Date.parse(hold.since)) / 1000)}`,
              <button type="button" class="danger" onClick={() => void end(hold.id, who)}>
                Break<span class="hidden"> the hold of {who}</span>
              </button>,
            ];
          })}
        />
      )}
    </section>
  );
}

interface ContextRow {
  id: string;
  created_at: string;
  expires_at: string;
  device: string;
  job: string | null;
  automation: string | null;
  label: string | null;
}

function Contexts(): JSX.Element {
  const [rows, setRows] = useState<ContextRow[] | null>(null);
  const read = (): Promise<void> =>
    call("GET", "/v1/contexts").then(
      ({ members }) => setRows(members.contexts as ContextRow[]),
      complain,
    );
  useEffect(() => {
    void read();
    return onOther((event) => {
      if (event !== "hold") void read();
    });
  }, []);
  const revoke = async (row: ContextRow): Promise<void> => {
    const text = `Requests with the token of ${row.label ?? row.id} are refused from then on.`;
    if (!(await confirm("Revoke the context?", text, "Revoke"))) return;
    const target = `/v1/contexts/${encodeURIComponent(row.id)}`;
    if (await attempt(() => call("DELETE", target), "The context is revoked")) await read();
  };
  return (
    <section aria-label="Contexts">
      <h2>Contexts</h2>
      {rows === null ? (
        <Loading what="the contexts" />
      ) : rows.length === 0 ? (
        <p class="empty">There is no live context.</p>
      ) : (
        <DataTable
          label="Contexts"
          columns={["Run", "Device", "Job", "Automation", "Expires", ""]}
          rows={rows.map((row) => [
            row.label ?? row.id,
            row.device,
            row.job ?? "(device)",
            row.automation ?? "–",
            localTime(row.expires_at),
            <button type="button" class="danger" onClick={() => void revoke(row)}>
              Revoke<span class="hidden"> {row.label ?? row.id}</span>
            </button>,
          ])}
        />
      )}
    </section>
  );
}

interface TrashRow {
  id: string;
  device: string;
  job: string | null;
  automation: string | null;
  revision: number;
  size: number;
  deleted_at: string;
  expires_at: string | null;
}

function Trash(): JSX.Element {
  const [rows, setRows] = useState<TrashRow[] | null>(null);
  const [isKept, setKept] = useState(true);
  const read = async (): Promise<void> => {
    try {
      const found: TrashRow[] = [];
      await pages("/v1/trash", (members) => found.push(...(members.trash as TrashRow[])));
      setRows(found);
    } catch (problem) {
      if (problem instanceof Refused && problem.code === "not_found") setKept(false);
      else complain(problem);
    }
  };
  void tableVersion.value;
  useEffect(() => void read(), [table.cells.size]);
  const restore = (row: TrashRow): Promise<boolean> =>
    attempt(
      () => call("POST", `/v1/trash/${encodeURIComponent(row.id)}/restore`).then(read),
      `The bucket of ${row.device}, ${row.job ?? "(device)"} is back`,
    );
  const remove = async (row: TrashRow): Promise<void> => {
    const text = `The bucket of ${row.device}, ${row.job ?? "(device)"} cannot be restored then.`;
    if (!(await confirm("Delete for good?", text, "Delete for good"))) return;
    await attempt(
      () => call("DELETE", `/v1/trash/${encodeURIComponent(row.id)}`).then(read),
      "The bucket is deleted for good",
    );
  };
  return (
    <section aria-label="Trash">
      <h2>Trash</h2>
      {!isKept ? (
        <p class="empty">This daemon has no trash.</p>
      ) : rows === null ? (
        <Loading what="the trash" />
      ) : rows.length === 0 ? (
        <p class="empty">The trash is empty.</p>
      ) : (
        <DataTable
          label="Trash"
          columns={["Device", "Job", "Size", "Deleted", "Kept until", ""]}
          rows={rows.map((row) => [
            row.device,
            row.job ?? "(device)",
            size(row.size),
            localTime(row.deleted_at),
            row.expires_at === null ? "–" : localTime(row.expires_at),
            <span class="actions start">
              <button type="button" onClick={() => void restore(row)}>
                Restore<span class="hidden"> {row.device}</span>
              </button>
              <button type="button" class="danger" onClick={() => void remove(row)}>
                Delete for good<span class="hidden"> {row.device}</span>
              </button>
            </span>,
          ])}
        />
      )}
    </section>
  );
}

function DataTable(props: {
  label: string;
  columns: string[];
  rows: (string | JSX.Element)[][];
}): JSX.Element {
  return (
    <div class="table-box" tabIndex={0} role="region" aria-label={`Table: ${props.label}`}>
      <table>
        <thead>
          <tr>
            {props.columns.map((title) => (
              <th scope="col" key={title}>
                {title || <span class="hidden">Actions</span>}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row, at) => (
            <tr key={at}>
              {row.map((item, column) => (
                <td key={column}>{item}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

