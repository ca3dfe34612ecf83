/** What the browser tests run: a daemon, a console, Chromium; and the table of their steps. */

import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request, Agent } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import assert from "node:assert/strict";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";

/** build/browser is where the tests run from. */
const HERE = fileURLToPath(new URL("../..", import.meta.url));
export const REPO = join(HERE, "../..");
export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** At full length measurements take as long as docs/console.md says, and docs get their pictures. */
export const FULL = process.env.CONSOLE_SCALE === "1";
export const PICTURES = FULL ? join(REPO, "docs/console") : join(HERE, "build/pictures");
const PYTHON = join(REPO, ".venv/bin/python");

/** Why these tests cannot run here, false if they can. */
export const skip: string | false = !existsSync(CHROMIUM)
  ? `there is no Chromium at ${CHROMIUM}; CHROMIUM names another one`
  : !existsSync(PYTHON)
    ? "there is no daemon in .venv; run make tools"
    : false;

export interface Answer {
  status: number;
  json: Record<string, unknown>;
  etag: string | undefined;
}

/** A daemon of its own, in a directory of its own. */
export class Daemon {
  readonly home = mkdtempSync(join(tmpdir(), "console-"));
  readonly socket = join(this.home, "b.sock");
  private process: ChildProcess | null = null;
  private readonly agent = new Agent({ keepAlive: true, maxSockets: 16 });

  get environment(): NodeJS.ProcessEnv {
    const clean = Object.entries(process.env).filter(([name]) => !name.startsWith("BUCKETD_"));
    return { ...Object.fromEntries(clean), BUCKETD_SOCKET: this.socket, BUCKETD_STORE_UNSAFE_FILESYSTEM: "true" };
  }

  async start(): Promise<this> {
    const options = ["--state-dir", join(this.home, "state"), "--runtime-dir", join(this.home, "run")];
    this.process = spawn(
      PYTHON,
      ["-m", "bucketd", "serve", ...options, "--socket", this.socket, "--log-level", "warning"],
      { cwd: REPO, env: this.environment, stdio: ["ignore", "inherit", "inherit"] },
    );
    await until("the daemon is ready", async () => (await this.call("GET", "/readyz")).status === 200);
    return this;
  }

  async stop(): Promise<void> {
    const { process } = this;
    if (process === null) return;
    this.process = null;
    await ended(process);
  }

  async remove(): Promise<void> {
    await this.stop();
    this.agent.destroy();
    rmSync(this.home, { recursive: true, force: true });
  }

  call(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const all = { ...headers, ...(text === undefined ? {} : { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) }) };
      const sent = request({ socketPath: this.socket, agent: this.agent, method, path, headers: all }, (response) => {
        const pieces: Buffer[] = [];
        response.on("data", (piece: Buffer) => pieces.push(piece));
        response.on("error", reject);
        response.on("end", () => {
          const found = Buffer.concat(pieces).toString();
          const isJson = response.headers["content-type"]?.includes("json");
          resolve({
            status: response.statusCode ?? 0,
            json: isJson ? (JSON.parse(found) as Record<string, unknown>) : {},
            etag: response.headers.etag,
          });
        });
      });
      sent.on("error", reject);
      sent.end(text);
    });
  }

  /** Call, and expect a success. */
  async must(method: string, path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer["json"]> {
    const answer = await this.call(method, path, body, headers);
    assert.ok(answer.status < 300, `${method} ${path}: ${JSON.stringify(answer.json)}`);
    return answer.json;
  }

  async bucket(device: string, job: string): Promise<Record<string, unknown>> {
    return (await this.must("GET", `/v1/devices/${device}/jobs/${job}/bucket`)).bucket as Record<string, unknown>;
  }

  /** Run bucketctl; `input` is its process, to be ended by the caller. */
  ctl(...words: string[]): ChildProcess {
    return spawn(PYTHON, ["-m", "bucketd_client.ctl", ...words], { cwd: REPO, env: this.environment, stdio: ["ignore", "pipe", "inherit"] });
  }
}

/** A running `bucketctl console --no-browser` and its first link. */
export class Console {
  private constructor(
    private readonly process: ChildProcess,
    readonly link: string,
  ) {}

  static async start(daemon: Daemon, ...options: string[]): Promise<Console> {
    const process = daemon.ctl("console", "--no-browser", ...options);
    const link = await new Promise<string>((resolve, reject) => {
      let text = "";
      process.stdout?.on("data", (piece: Buffer) => {
        text += piece.toString();
        const found = /http:\/\/127\.0\.0\.1:\d+\/#ticket=[\w-]+/.exec(text);
        if (found) resolve(found[0]);
      });
      process.on("exit", () => reject(new Error(`the console has ended: ${text}`)));
    });
    return new Console(process, link);
  }

  get origin(): string {
    return new URL(this.link).origin;
  }

  get port(): string {
    return new URL(this.link).port;
  }

  stop(): Promise<void> {
    return ended(this.process);
  }
}

function ended(process: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (process.exitCode !== null || process.signalCode !== null) return resolve();
    process.on("exit", () => resolve());
    process.kill("SIGTERM");
  });
}

export async function until(what: string, isSo: () => Promise<boolean> | boolean, seconds = 10): Promise<void> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    try {
      if (await isSo()) return;
    } catch {
      // It is not so yet.
    }
    if (Date.now() > end) throw new Error(`waited ${seconds} s in vain: ${what}`);
    await new Promise((resume) => setTimeout(resume, 20));
  }
}

/** Start Chromium; names in `.example` and `127.0.0.1.evil` lead to this host, as for an attacker. */
export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
      ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
      "--host-resolver-rules=MAP *.example 127.0.0.1, MAP 127.0.0.1.evil 127.0.0.1",
    ],
  });
}

export type Scheme = "light" | "dark";

/** Open a page of the console, and collect what must not happen in it. */
export async function openPage(
  browser: Browser,
  link: string,
  options: { scheme?: Scheme; width?: number; height?: number } = {},
): Promise<{ page: Page; context: BrowserContext; problems: string[] }> {
  const { scheme = "light", width = 1200, height = 760 } = options;
  const context = await browser.newContext({
    colorScheme: scheme,
    viewport: { width, height },
    locale: "en-GB",
    permissions: ["clipboard-read", "clipboard-write"],
  });
  context.setDefaultTimeout(6_000);
  const page = await context.newPage();
  const problems: string[] = [];
  const { origin } = new URL(link);
  page.on("pageerror", (problem) => problems.push(String(problem.stack)));
  page.on("console", (message) => {
    const text = message.text();
    // A refused request is told by the page itself.
    const isRefusal = text.startsWith("Failed to load resource");
    if (message.type() === "error" && !isRefusal) {
      problems.push(`${text} (${JSON.stringify(message.location())})`);
    }
  });
  page.on("request", (sent) => {
    if (!sent.url().startsWith(`${origin}/`)) problems.push(`a request to ${sent.url()}`);
  });
  await page.goto(link);
  return { page, context, problems };
}

// --- accessibility

const axeSource = (): string =>
  readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface AxeResult {
  violations: { id: string; help: string; nodes: { html: string; failureSummary?: string }[] }[];
}

/** Check what is shown with axe-core, light and dark; light stays. */
export async function checkAccessibility(page: Page): Promise<void> {
  await page.evaluate(axeSource());
  for (const colorScheme of ["dark", "light"] as const) {
    await page.emulateMedia({ colorScheme });
    // Colours in the middle of a flash or of a transition are no colours of the page.
    await page.waitForTimeout(200);
    const { violations } = (await page.evaluate(
      "axe.run(document, { resultTypes: ['violations'] })",
    )) as AxeResult;
    const told = violations.map(({ id, help, nodes }) => {
      const places = nodes.slice(0, 4).map((node) => `${node.html.slice(0, 200)}\n    ${node.failureSummary ?? ""}`);
      return `${colorScheme}: ${id}: ${help}\n  ${places.join("\n  ")}`;
    });
    assert.equal(told.join("\n"), "");
  }
}

// --- the table of steps

export interface Step {
  suite: string;
  step: string;
  seconds: number;
  told: string;
}

const steps: Step[] = [];

/** A test that is a row of the table in docs/console.md; `run` may return a figure to be told. */
export function step(suite: string, name: string, run: () => Promise<string | void>): void {
  test(`${suite}: ${name}`, { skip, timeout: FULL ? 120_000 : 60_000 }, async () => {
    const began = performance.now();
    const told = (await run()) ?? "";
    steps.push({ suite, step: name, seconds: (performance.now() - began) / 1000, told });
    if (told) console.log(`# ${name}: ${told}`);
  });
}

/** Write the steps of one file of tests, for the table. */
export function writeSteps(file: string): void {
  const folder = join(HERE, "build/steps");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, `${file}.json`), JSON.stringify(steps, null, 1));
}

export async function picture(page: Page, name: string): Promise<void> {
  mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: join(PICTURES, `${name}.png`), animations: "allow", caret: "initial" });
}
