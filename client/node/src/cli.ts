#!/usr/bin/env node
import { spawn } from "node:child_process";
import { constants } from "node:os";
import { parseArgs } from "node:util";
import { startServer } from "./testing/index.js";

const USAGE = `usage: bucketd-client dev [--device DEVICE] [--job JOB] [--bucket JSON] -- COMMAND [ARGUMENT...]

Run a command with a bucketd in memory, for a computer that has none: the command gets a job context
in its environment, as from "bucketctl run", and its buckets end with it.

  --device DEVICE   default: dev-device
  --job JOB         default: dev-job
  --bucket JSON     what the bucket holds at first`;

class UsageError extends Error {}

interface Wanted {
  readonly device: string;
  readonly job: string;
  readonly bucket: object | undefined;
  readonly command: string[];
}

/** Return what the command line asks for; throw a UsageError for one that is not valid. */
function wantedBy(given: string[]): Wanted | "help" {
  const end = given.indexOf("--");
  const [own, command] = end < 0 ? [given, []] : [given.slice(0, end), given.slice(end + 1)];
  const text = { type: "string" } as const;
  const options = { device: text, job: text, bucket: text, help: { type: "boolean", short: "h" } } as const;
  const { values, positionals } = parsed(() => parseArgs({ args: own, options, allowPositionals: true }));
  if (values.help) return "help";
  if (positionals.join(" ") !== "dev") throw new UsageError("cannot tell what to do: the only word before the options is dev");
  if (command.length === 0) throw new UsageError("cannot run a command: name it behind --");
  const bucket = values.bucket === undefined ? undefined : parsed(() => JSON.parse(values.bucket!));
  return { device: values.device ?? "dev-device", job: values.job ?? "dev-job", bucket, command };
}

function parsed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** Run the command to its end, and return its exit status. */
async function dev({ device, job, bucket: data, command: [program, ...args] }: Wanted): Promise<number> {
  const server = await startServer();
  try {
    const bucket = server.bucket(device, job, { label: "dev" });
    if (data !== undefined) bucket.seed(data);
    const others = Object.entries(process.env).filter(([name]) => !name.startsWith("BUCKETD_"));
    const env = { ...Object.fromEntries(others), ...bucket.environ };
    return await statusOf(program!, args, env);
  } finally {
    await server.close();
  }
}

function statusOf(program: string, args: string[], env: NodeJS.ProcessEnv): Promise<number> {
  // A terminal sends Ctrl-C to the command, too; what is sent to this process alone is passed on. The
  // command may run before spawn returns, so a signal is taken from here on.
  process.on("SIGINT", () => undefined);
  for (const signal of ["SIGTERM", "SIGHUP"] as const) process.on(signal, () => child.kill(signal));
  const child = spawn(program, args, { env, stdio: "inherit" });
  return new Promise((resolve) => {
    child.once("error", ({ message }) => {
      console.error(`bucketd-client: cannot run ${program}: ${message}`);
      resolve(127);
    });
    child.once("close", (code, signal) => resolve(code ?? 128 + (signal ? constants.signals[signal] : 0)));
  });
}

async function main(): Promise<number> {
  try {
    const wanted = wantedBy(process.argv.slice(2));
    if (wanted !== "help") return await dev(wanted);
    console.log(USAGE);
    return 0;
  } catch (error) {
    const problem = error as Error;
    console.error(`bucketd-client: ${problem.message}${problem instanceof UsageError ? `\n${USAGE}` : ""}`);
    return problem instanceof UsageError ? 2 : 1;
  }
}

void main().then((status) => process.exit(status));
