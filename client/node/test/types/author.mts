// As an author writes it, with the bucket untyped.
import { agent } from "bucketd-client";

declare function resume(token: string, age: number): void;

const result = await agent.utils.bucket.get();
if (result.success) {
  if (result.bucket.loggedIn && result.bucket.sessionToken) {
    resume(result.bucket.sessionToken, result.bucket.loginTimestamp);
  }
  const revision: number = result.revision;
  console.log(revision, result.recovered_from?.reason, result.stale_seconds?.toFixed());
} else {
  console.error(result.error.length, result.code, result.details?.[0]?.path);
}

await agent.utils.bucket.set({ sessionToken: "abc", loggedIn: true });
await agent.utils.bucket.set({ loginTimestamp: Date.now() });
interface Session {
  sessionToken: string;
  attempts?: number;
}
const session: Session = { sessionToken: "abc" };
await agent.utils.bucket.set(session);
await agent.utils.bucket.set({ nested: { list: [1, null, "x"] }, nothing: null, later: undefined });

// The result is what a plain description of it says.
const plain: { success: true; bucket: Record<string, any> } | { success: false; error: string } = result;
console.log(plain.success);

const device = await agent.utils.deviceBucket.get();
if (device.success) console.log(device.deviceBucket.model);
await agent.utils.deviceBucket.set({ model: "x" });

// @ts-expect-error before the result is narrowed there is no bucket
result.bucket;
// @ts-expect-error nor an error
result.error;
if (device.success) {
  // @ts-expect-error the device's result has no `bucket`
  device.bucket;
}

export {};
