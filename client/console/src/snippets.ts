/** The same bucket in a shell and in programs, to be copied. */

export interface BucketName {
  device: string;
  /** Null for the device bucket. */
  job: string | null;
}

/** Return the path of a bucket's routes. */
export function bucketPath({ device, job }: BucketName): string {
  const jobPart = job === null ? "" : `/jobs/${encodeURIComponent(job)}`;
  return `/v1/devices/${encodeURIComponent(device)}${jobPart}/bucket`;
}

const shell = (text: string): string =>
  /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;

export function curl(name: BucketName, socket: string): string {
  return `curl --unix-socket ${shell(socket)} ${shell(`http://bucketd${bucketPath(name)}`)}`;
}

export function python({ device, job }: BucketName, socket: string): string {
  const quoted = (text: string): string => JSON.stringify(text);
  const jobPart = job === null ? "" : `, job=${quoted(job)}`;
  return [
    "from bucketd_client import Bucket",
    "",
    `bucket = Bucket(device=${quoted(device)}${jobPart}, socket=${quoted(socket)})`,
    "print(bucket.get())",
  ].join("\n");
}

export function typescript({ device, job }: BucketName, socket: string): string {
  const quoted = (text: string): string => JSON.stringify(text);
  const jobPart = job === null ? "" : `, job: ${quoted(job)}`;
  return [
    'import { Bucket } from "bucketd-client";',
    "",
    `const bucket = new Bucket({ device: ${quoted(device)}${jobPart}, socket: ${quoted(socket)} });`,
    "console.log(await bucket.get());",
  ].join("\n");
}
