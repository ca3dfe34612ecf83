import { useBucketd } from "bucketd-client/testing";

export const use: typeof useBucketd = useBucketd;
