import { type StoredBucket, type Write, startServer, useBucketd } from "bucketd-client/testing";

export async function check(t: { after(clean: () => unknown): void }): Promise<void> {
  const { bucket, deviceBucket, server } = await useBucketd(t, { bucket: { loggedIn: true }, job: "j" });
  const both: StoredBucket[] = [bucket, deviceBucket, server.bucket("d")];
  const first: Write | undefined = both[0]?.writes[0];
  bucket.assertSet({ loggedIn: first?.set["loggedIn"] });
  server.refuse("schema_violation", { times: 2, details: [{ path: "/a" }] });
  const other = await startServer({ maxBytes: 100 });
  await other.close();
}
