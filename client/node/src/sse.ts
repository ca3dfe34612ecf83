/** One event; `id` is the newest of the stream, and `data` is empty when the event carries only an id. */
export interface ServerEvent {
  readonly kind: string;
  readonly id: string;
  readonly data: string;
}

/** Parse Server-Sent Events from chunks of text; lines end in LF, or CR and LF. */
export class EventParser {
  private line = "";
  private id = "";
  private kind = "";
  private data: string[] = [];

  /** Return the events that this chunk completes. */
  feed(text: string): ServerEvent[] {
    const lines = text.split("\n");
    lines[0] = this.line + lines[0];
    this.line = lines.pop()!;
    return lines.flatMap((line) => this.parseLine(line.replace(/\r$/, "")));
  }

  private parseLine(line: string): ServerEvent[] {
    if (line === "") return [this.dispatch()];
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id" && !value.includes("\0")) this.id = value;
    if (name === "event") this.kind = value;
    if (name === "data") this.data.push(value);
    return [];
  }

  private dispatch(): ServerEvent {
    const event = { kind: this.kind, id: this.id, data: this.data.join("\n") };
    this.kind = "";
    this.data = [];
    return event;
  }
}
