// As a generated file looks.
import "bucketd-client";

export interface LoginBucket {
  sessionToken?: string;
  loggedIn?: boolean;
  loginTimestamp?: number;
}

export interface PhoneBucket {
  model: string;
}

declare module "bucketd-client" {
  interface BucketTypes {
    bucket: LoginBucket;
    deviceBucket: PhoneBucket;
  }
}
