// An automation that logs in once and resumes its session in every later task iteration.
//
// From a checkout, with Node 18 or newer (`make node` once before):
//
//   bucketctl run --device phone-1 --job login -- node client/node/scripts/example.mjs
//
// Run it twice: the first run logs in, the second resumes. In a project of your own, name the
// file login-session.mts, `npm install bucketd-client`, and compile it with
// `tsc --strict --module nodenext --target es2022`.

import { randomUUID } from "node:crypto";
import { agent } from "bucketd-client";

const USER = "demo-user";

/** Stands in for what your automation does on the phone: type the name, wait for the code, … */
async function logIn(user: string): Promise<string> {
  return `${user}:${randomUUID()}`;
}

/** Stands in for the work itself. */
async function work(sessionToken: string): Promise<void> {
  if (!sessionToken.startsWith(`${USER}:`)) throw new Error("the app refuses the session");
}

function stop(error: string): never {
  console.error(`login: cannot use the bucket: ${error}`);
  process.exit(1);
}

const result = await agent.utils.bucket.get();
if (!result.success) stop(result.error);

if (result.bucket.loggedIn && result.bucket.sessionToken) {
  console.log("login: resuming the stored session, no login needed");
  await work(result.bucket.sessionToken);
} else {
  console.log(`login: no session stored, logging in as ${USER}`);
  const sessionToken = await logIn(USER);
  const stored = await agent.utils.bucket.set({ sessionToken, loggedIn: true, loginTimestamp: Date.now() });
  if (!stored.success) stop(stored.error);
  console.log(`login: session stored (revision ${stored.revision})`);
  await work(sessionToken);
}
