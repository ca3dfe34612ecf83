// require, from a CommonJS module.
import client = require("bucketd-client");
import { agent, Bucket } from "bucketd-client";

async function main(): Promise<string> {
  const result = await agent.utils.bucket.get();
  if (!result.success) throw new Error(result.error);
  const bucket: client.Bucket = new client.Bucket({ token: "t" });
  console.log(bucket instanceof Bucket);
  return result.bucket.sessionToken;
}
void main();
