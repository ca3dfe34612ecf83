/** The place of a JSON editor, whose code is loaded when the first one is shown. */

import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Violation } from "./cells.js";
import type { JsonEditor } from "./editor.js";

interface Props {
  /**
   * The text to show. It is not what is typed: a text that came back from the editor late would
   * undo what was typed since.
   */
  text: string;
  /** Another number shows `text` anew, also where it is the same as before. */
  serial?: number;
  label: string;
  readOnly?: boolean;
  schema?: unknown;
  violations?: readonly Violation[];
  onChange?: (text: string) => void;
  /** Called with the editor once it is there. */
  onReady?: (editor: JsonEditor) => void;
}

const NONE: readonly Violation[] = [];

/** Show a text; while `text` and `serial` stay the same, what is typed stays. */
export function EditorHost(props: Props): JSX.Element {
  const host = useRef<HTMLDivElement>(null);
  const [editor, setEditor] = useState<JsonEditor | null>(null);
  const changed = useRef(props.onChange);
  changed.current = props.onChange;
  const { text, label, readOnly = false, schema, violations = NONE } = props;
  useEffect(() => {
    let made: JsonEditor | null = null;
    let isGone = false;
    void import("./editor.js").then(({ JsonEditor: Editor }) => {
      if (isGone || host.current === null) return;
      made = new Editor(host.current, {
        text,
        label,
        readOnly,
        schema,
        onChange: (now) => changed.current?.(now),
      });
      setEditor(made);
      props.onReady?.(made);
    });
    return () => {
      isGone = true;
      made?.destroy();
    };
  }, [readOnly, label]);
  useEffect(() => editor?.setText(text), [editor, text, props.serial]);
  useEffect(() => editor?.setSchema(schema), [editor, schema]);
  useEffect(() => editor?.setViolations(violations), [editor, violations]);
  return <div class="editor" ref={host} data-testid="editor" />;
}
