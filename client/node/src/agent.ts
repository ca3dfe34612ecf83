import { type Call, sendTo } from "./call.js";
import { resolve } from "./context.js";
import { encodeObject } from "./encode.js";
import { BucketError } from "./errors.js";
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
  /** The stored bucket, `{}` if there is none yet. */
  get(): Promise<BucketResult>;
  /** Merge shallowly: keys not named stay, `null` is a value. Results in the whole bucket. */
  set(data: Partial<BucketData>): Promise<BucketResult>;
  /** Every change from the first step on, by whomever; a failure is the last. */
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

/** The automation's own view: its context is what the environment says at each call. */
export const agent: Agent = {
  utils: {
    bucket: {
      get: () => result(false, get),
      set: (data) => result(false, () => merge(data)),
      watch: (options) => changes(false, options),
    },
    deviceBucket: {
      get: () => result(true, get),
      set: (data) => result(true, () => merge(data)),
      watch: (options) => changes(true, options),
    },
  },
};

function get(): Call {
  return { method: "GET" };
}

function merge(data: unknown): Call {
  return { method: "PATCH", body: encodeObject(data, "set the bucket") };
}

async function result(deviceBucket: boolean, what: () => Call): Promise<any> {
  try {
    const { body } = await sendTo(resolve({ deviceBucket }), what());
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
    return { success: false, error: `cannot use the bucket: ${error}`, code: "internal" };
  }
  const { message, code, details } = error;
  return { success: false, error: message, code, ...(details && { details }) };
}
