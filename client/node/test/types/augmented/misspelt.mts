import { agent } from "bucketd-client";

await agent.utils.bucket.set({ sesionToken: "abc" });
