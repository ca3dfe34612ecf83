/** Server-Sent Events out of the pieces of a stream. */

export interface ServerEvent {
  event: string;
  id: string | null;
  data: string;
}

/** Parse a stream piece by piece; each call returns the events that are complete. */
export class EventParser {
  private rest = "";
  private event = "";
  private id: string | null = null;
  private data: string[] = [];

  feed(text: string): ServerEvent[] {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() as string;
    const found: ServerEvent[] = [];
    for (const line of lines) this.line(line.replace(/\r$/, ""), found);
    return found;
  }

  private line(line: string, found: ServerEvent[]): void {
    if (line === "") {
      if (this.event || this.data.length > 0 || this.id !== null) {
        found.push({ event: this.event, id: this.id, data: this.data.join("\n") });
      }
      [this.event, this.id, this.data] = ["", null, []];
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.event = value;
    else if (name === "id") this.id = value;
    else if (name === "data") this.data.push(value);
  }
}
