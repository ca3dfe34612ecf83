// Claim one account of a list, so that no two runs use the same one at a time.
//
//   bucketctl run --device accounts --job shop -- node account-pool.mts
//
// It needs the package bucketd-client, and Node 22.18 or newer (or a compiler). ACCOUNTS names the
// accounts, separated by blanks.

import { setTimeout as sleep } from "node:timers/promises";
import { Bucket, HeldError, type HeldBucket } from "bucketd-client";

const ACCOUNTS = (process.env.ACCOUNTS ?? "ada bob").split(" ");
const WAIT_SECONDS = 600;

/** Return the hold of the first account that is free: each account is one name. */
async function claim(pool: Bucket): Promise<HeldBucket> {
  for (const until = Date.now() + 1000 * WAIT_SECONDS; ; await sleep(500)) {
    for (const name of ACCOUNTS) {
      try {
        return await pool.hold({ name, wait: 0 });
      } catch (error) {
        if (!(error instanceof HeldError) || Date.now() > until) throw error;
      }
    }
  }
}

const account = await claim(new Bucket());
try {
  console.log(`working as ${account.name}`);
  await sleep(Number(process.env.SECONDS ?? 1) * 1000); // stands in for the work
} finally {
  await account.release(); // a run that dies releases it as well
}
