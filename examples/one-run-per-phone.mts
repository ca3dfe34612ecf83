// One run per phone: a second one that is started meanwhile says so and ends.
//
//   */5 * * * * bucketctl run --device phone-1 --job nightly -- node one-run-per-phone.mts
//
// It needs the package bucketd-client, and Node 22.18 or newer (or a compiler).

import { setTimeout as sleep } from "node:timers/promises";
import { agent, Bucket } from "bucketd-client";

/** Stands in for what your automation does on the phone. */
async function work(signal: AbortSignal): Promise<void> {
  await sleep(Number(process.env.SECONDS ?? 1) * 1000, undefined, { signal });
}

// The hold of the device keeps all other jobs off the phone as well.
const result = await agent.utils.deviceBucket.hold({ wait: 0, label: "nightly" }, async (held) => {
  await work(held.signal);
  // With the fence of the device, a run whose hold was ended changes the job's bucket no more.
  const bucket = new Bucket<{ runs?: number }>({ fence: held.fence });
  const { runs } = await bucket.update((b) => void (b.runs = (b.runs ?? 0) + 1));
  return runs;
});

if (result.success) {
  console.log(`run ${result.value}`);
} else if (result.code === "held") {
  const [holder] = result.details ?? [];
  console.log(`somebody works on the phone since ${Math.round(holder?.seconds)} s (${holder?.label})`);
} else {
  throw new Error(result.error);
}
