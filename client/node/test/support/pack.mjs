import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Pack the package as `npm publish` would and unpack it, offline, as a dependency of a new directory. */
export function consumer() {
  const dir = mkdtempSync(join(tmpdir(), "bucketd-consumer-"));
  const pack = ["pack", "--ignore-scripts", "--silent", "--pack-destination", dir];
  const tarball = execFileSync("npm", pack, { cwd: ROOT, encoding: "utf8" }).trim().split("\n").at(-1);
  const home = join(dir, "node_modules", "bucketd-client");
  mkdirSync(home, { recursive: true });
  execFileSync("tar", ["-xzf", join(dir, tarball), "-C", home, "--strip-components=1"]);
  return dir;
}

export const TSC = join(ROOT, "node_modules", "typescript", "bin", "tsc");
