// For resolutions that go by "main" and "types".
import { agent, Bucket, type BucketData } from "bucketd-client";

export async function token(): Promise<string> {
  const result = await agent.utils.bucket.get();
  if (result.success) return result.bucket.sessionToken;
  throw new Error(result.error);
}
export const bucket = new Bucket<BucketData>();
