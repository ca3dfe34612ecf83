import { agent, Bucket, type BucketData } from "bucketd-client";

const result = await agent.utils.bucket.get();
if (result.success) {
  const token: string | undefined = result.bucket.sessionToken;
  console.log(token);
  // @ts-expect-error a misspelt key
  result.bucket.sesionToken;
  // @ts-expect-error a wrong type
  const wrong: number = result.bucket.sessionToken;
}
await agent.utils.bucket.set({ loggedIn: true });
// @ts-expect-error a misspelt key
await agent.utils.bucket.set({ logedIn: true });
// @ts-expect-error a wrong type
await agent.utils.bucket.set({ loginTimestamp: "now" });

const device = await agent.utils.deviceBucket.get();
if (device.success) {
  const model: string = device.deviceBucket.model;
  console.log(model);
}
// @ts-expect-error a key of the other bucket
await agent.utils.deviceBucket.set({ loggedIn: true });

const bucket = new Bucket<BucketData>();
// @ts-expect-error a misspelt key
await bucket.set({ logedIn: true });
