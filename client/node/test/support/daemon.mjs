import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const BUCKETD = process.env.BUCKETD_BIN ?? fileURLToPath(new URL("../../../../.venv/bin/bucketd", import.meta.url));

/** One request past the client; `{status, headers, body}`. */
export function api(socketPath, method, path, body, headers = {}) {
  const text = body === undefined ? undefined : JSON.stringify(body);
  const type = text === undefined ? {} : { "Content-Type": "application/json" };
  return new Promise((resolve, reject) => {
    const options = { socketPath, method, path, headers: { ...type, ...headers }, agent: false };
    const request = http.request(options, async (response) => {
      let all = "";
      for await (const chunk of response.setEncoding("utf8")) all += chunk;
      resolve({ status: response.statusCode, headers: response.headers, body: JSON.parse(all) });
    });
    request.on("error", reject).end(text);
  });
}

/** A bucketd of its own, in a new directory; `after` is the test runner's hook to stop it. */
export class Daemon {
  static async start(after) {
    try {
      accessSync(BUCKETD, constants.X_OK);
    } catch {
      throw new Error(`cannot test against a daemon: no bucketd at ${BUCKETD}; run \`make venv\`, or set BUCKETD_BIN`);
    }
    const daemon = new Daemon();
    after(() => daemon.remove());
    await daemon.run();
    return daemon;
  }

  dir = mkdtempSync(join(tmpdir(), "bucketd-"));
  socket = join(this.dir, "b.sock");
  state = join(this.dir, "state");

  async run() {
    const places = ["--state-dir", this.state, "--runtime-dir", join(this.dir, "run"), "--socket", this.socket];
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("BUCKETD_")));
    this.child = spawn(BUCKETD, ["serve", ...places, "--log-level", "warning"], { env, stdio: ["ignore", 2, 2] });
    await this.ready();
  }

  async ready() {
    for (let tries = 0; tries < 1200; tries++) {
      if (this.child.exitCode !== null) throw new Error(`bucketd ended with status ${this.child.exitCode}`);
      const answer = await this.api("GET", "/readyz").catch(() => undefined);
      if (answer?.status === 200) return;
      await sleep(25);
    }
    throw new Error("bucketd was not ready within 30 s");
  }

  async end(signal) {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill(signal);
    await once(this.child, "exit");
  }

  async remove() {
    await this.end("SIGTERM");
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** One request past the client; `{status, headers, body}`. */
  api(method, path, body, headers) {
    return api(this.socket, method, path, body, headers);
  }

  async mint(context) {
    const { status, body } = await this.api("POST", "/v1/contexts", context);
    if (status !== 201) throw new Error(`cannot mint a context: ${JSON.stringify(body)}`);
    return body;
  }

  /** The file of a (device, job) bucket, for names that need no encoding. */
  file(device, job) {
    // Files follow the acknowledgement; they are current whenever the lock can be had.
    const path = join(this.state, "devices", device, "jobs", `${job}.json`);
    return JSON.parse(execFileSync("flock", [join(this.state, "write.lock"), "cat", path], { encoding: "utf8" }));
  }
}

/** Start a node process; resolves to its `{code, signal, stdout, stderr}`. */
export async function node(args, { cwd, env = {} } = {}) {
  const child = spawn(process.execPath, args, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const told = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"]) child[name].on("data", (data) => (told[name] += data));
  const [code, signal] = await once(child, "close");
  return { code, signal, ...told };
}
