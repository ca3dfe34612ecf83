import { resolve } from "./context.js";
import { BucketError } from "./errors.js";
import { encodeObject, nameOfError } from "./json.js";
import { type BucketRequest, requestBucket } from "./request.js";
import type {
  BucketData,
  BucketResult,
  DeviceBucketData,
  DeviceBucketResult,
  Failure,
  WatchOptions,
  WatchResult,
} from "./types.js";
import { watch } from "./watch.js";

/** The bucket of the environment's (device, job). Never rejects: look at `success`. */
export interface AgentBucket {
  /** Read the stored bucket; `{}` if there is none yet. */
  get(): Promise<BucketResult>;
  /** Merge shallowly: keys not named stay, `null` is a value. The result holds the whole bucket. */
  set(data: Partial<BucketData>): Promise<BucketResult>;
  /** Iterate over every change from now on, whoever makes it; a failure comes last. */
  watch(options?: WatchOptions): AsyncGenerator<WatchResult<BucketData>, void, void>;
}

/** The bucket of the environment's device, shared by its jobs. Never rejects. */
export interface AgentDeviceBucket {
  get(): Promise<DeviceBucketResult>;
  set(data: Partial<DeviceBucketData>): Promise<DeviceBucketResult>;
  watch(options?: WatchOptions): AsyncGenerator<WatchResult<DeviceBucketData>, void, void>;
}

export interface Agent {
  utils: {
    bucket: AgentBucket;
    deviceBucket: AgentDeviceBucket;
  };
}

/** The automation's own view; the environment names its context, read at each call. */
export const agent: Agent = {
  utils: {
    bucket: {
      get: () => resultOf(false, get),
      set: (data) => resultOf(false, () => merge(data)),
      watch: (options) => changes(false, options),
    },
    deviceBucket: {
      get: () => resultOf(true, get),
      set: (data) => resultOf(true, () => merge(data)),
      watch: (options) => changes(true, options),
    },
  },
};

function get(): BucketRequest {
  return { method: "GET" };
}

function merge(data: unknown): BucketRequest {
  return { method: "PATCH", body: encodeObject(data, "set the bucket") };
}

async function resultOf(deviceBucket: boolean, build: () => BucketRequest): Promise<any> {
  try {
    const { body } = await requestBucket(resolve({ deviceBucket }), build());
    return body;
  } catch (error) {
    return failure(error);
  }
}

async function* changes(deviceBucket: boolean, options: WatchOptions = {}): AsyncGenerator<WatchResult<any>, void, void> {
  try {
    for await (const change of watch(resolve({ deviceBucket }), options)) yield { success: true, ...change };
  } catch (error) {
    yield failure(error);
  }
}

function failure(error: unknown): Failure {
  if (!(error instanceof BucketError)) {
    return { success: false, error: `cannot use the bucket: unexpected ${nameOfError(error)}`, code: "internal" };
  }
  const { message, code, details } = error;
  return { success: false, error: message, code, ...(details && { details }) };
}
