// Compile the client and the examples that need nothing else where that is due, and run
// examples/login-session.ts here, unless all that is asked for is to --build them.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const files = ["account-pool.mts", "login-session.ts", "one-run-per-phone.mts"];
const examples = files.map((name) => join(root, "..", "..", "examples", name));
const home = join(root, "build", "example");
const program = join(home, "login-session.js");

/** Runs tsc, unless `output` is newer than all `inputs`. */
function compile(project, output, inputs) {
  const newest = Math.max(...inputs.map((path) => statSync(path).mtimeMs));
  if (existsSync(output) && statSync(output).mtimeMs > newest) return;
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  if (!existsSync(tsc)) stop("cannot compile the example: run `make node` once before");
  try {
    execFileSync(process.execPath, [tsc, "-p", join(root, project)], { stdio: ["ignore", 2, 2] });
  } catch {
    stop("cannot compile the example: see above");
  }
}

function stop(error) {
  console.error(error);
  process.exit(1);
}

/** Lets the compiled example import the client by its name. */
function installClient() {
  const modules = join(home, "node_modules");
  mkdirSync(modules, { recursive: true });
  writeFileSync(join(home, "package.json"), '{ "type": "module" }\n');
  if (!existsSync(join(modules, "bucketd-client"))) symlinkSync(root, join(modules, "bucketd-client"));
}

const sources = readdirSync(join(root, "src")).map((name) => join(root, "src", name));
compile("tsconfig.json", join(root, "dist", "index.mjs"), sources);
compile("tsconfig.example.json", program, examples);
installClient();
if (process.argv[2] !== "--build") await import(pathToFileURL(program).href);
