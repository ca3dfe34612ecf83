// The package has its types where require does not find them.
declare module "lossless-json" {
  interface ParseOptions {
    parseNumber: (digits: string) => unknown;
    onDuplicateKey: (key: { newValue: unknown }) => unknown;
  }
  export function parse(text: string, reviver: null, options: ParseOptions): unknown;
  export function stringify(value: unknown): string | undefined;
}
