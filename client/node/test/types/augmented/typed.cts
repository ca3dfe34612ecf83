import { agent } from "bucketd-client";

export async function token(): Promise<string | undefined> {
  const result = await agent.utils.bucket.get();
  // @ts-expect-error a wrong type
  await agent.utils.bucket.set({ loggedIn: "yes" });
  return result.success ? result.bucket.sessionToken : undefined;
}
