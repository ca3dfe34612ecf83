/** The JSON editor: CodeMirror with the schema's completion, and squiggles. Loaded when needed. */

import {
  autocompletion,
  closeBrackets,
  closeBracketsKeymap,
  completionKeymap,
  type Completion,
  type CompletionContext,
  type CompletionResult,
} from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { json } from "@codemirror/lang-json";
import {
  bracketMatching,
  foldGutter,
  foldKeymap,
  HighlightStyle,
  indentOnInput,
  syntaxHighlighting,
  syntaxTree,
} from "@codemirror/language";
import { lintGutter, lintKeymap, setDiagnostics, type Diagnostic } from "@codemirror/lint";
import { Compartment, EditorState } from "@codemirror/state";
import {
  drawSelection,
  EditorView,
  highlightActiveLine,
  keymap,
  lineNumbers,
} from "@codemirror/view";
import type { SyntaxNode } from "@lezer/common";
import { tags } from "@lezer/highlight";
import { JsonError, names, parseWithPlaces, type Place } from "./json.js";
import { keySuggestions, valueSuggestions, type Suggestion } from "./schema.js";
import type { Violation } from "./cells.js";

export interface EditorOptions {
  text: string;
  label: string;
  readOnly?: boolean;
  schema?: unknown;
  onChange?: (text: string) => void;
}

const highlight = HighlightStyle.define([
  { tag: tags.propertyName, color: "var(--json-key)" },
  { tag: tags.string, color: "var(--json-string)" },
  { tag: tags.number, color: "var(--json-number)" },
  { tag: [tags.bool, tags.null], color: "var(--json-word)" },
  { tag: tags.invalid, color: "var(--bad)" },
]);

// The underlines of CodeMirror are images in data: URLs, which the page's policy forbids.
const wavy = (colour: string): Record<string, string> => ({
  backgroundImage: "none",
  textDecoration: `underline wavy ${colour}`,
  textUnderlineOffset: "3px",
});
const theme = EditorView.theme({
  "&": { height: "100%", fontSize: "0.875rem", color: "var(--text)", background: "var(--field)" },
  "&.cm-focused": { outline: "2px solid var(--focus)", outlineOffset: "-2px" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.5" },
  ".cm-content": { caretColor: "var(--text)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  ".cm-gutters": { background: "var(--panel)", color: "var(--dim)", border: "none" },
  ".cm-activeLine": { background: "color-mix(in srgb, var(--accent) 7%, transparent)" },
  ".cm-selectionBackground, &.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground":
    { background: "color-mix(in srgb, var(--accent) 30%, transparent)" },
  ".cm-lintRange-error": wavy("var(--bad)"),
  ".cm-lintRange-warning": wavy("var(--warn)"),
  ".cm-lint-marker": { content: "none", width: "0.9em", height: "0.9em" },
  ".cm-lint-marker-error": { background: "var(--bad)", borderRadius: "50%" },
  ".cm-tooltip": {
    background: "var(--panel)",
    color: "var(--text)",
    border: "1px solid var(--line)",
    borderRadius: "4px",
  },
  ".cm-tooltip.cm-tooltip-autocomplete > ul > li[aria-selected]": {
    background: "var(--accent)",
    color: "var(--on-accent)",
  },
  ".cm-completionDetail": { color: "inherit", opacity: "0.8" },
});

/** An editor in a shadow tree, whose style sheets need no exception in the page's policy. */
export class JsonEditor {
  private readonly view: EditorView;
  private readonly completion = new Compartment();
  private violations: readonly Violation[] = [];
  private isSetting = false;

  constructor(host: HTMLElement, options: EditorOptions) {
    const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
    root.replaceChildren();
    const parent = document.createElement("div");
    parent.style.height = "100%";
    root.append(parent);
    this.view = new EditorView({
      root,
      parent,
      state: EditorState.create({
        doc: options.text,
        extensions: [
          lineNumbers(),
          foldGutter(),
          lintGutter(),
          history(),
          drawSelection(),
          indentOnInput(),
          bracketMatching(),
          closeBrackets(),
          highlightActiveLine(),
          json(),
          syntaxHighlighting(highlight),
          theme,
          EditorView.lineWrapping,
          this.completion.of(completionOf(options.schema)),
          keymap.of([
            ...closeBracketsKeymap,
            ...defaultKeymap,
            ...historyKeymap,
            ...foldKeymap,
            ...completionKeymap,
            ...lintKeymap,
          ]),
          EditorState.readOnly.of(options.readOnly ?? false),
          EditorView.contentAttributes.of({ "aria-label": options.label, tabindex: "0" }),
          EditorView.updateListener.of((update) => {
            if (!update.docChanged) return;
            this.mark();
            if (!this.isSetting) options.onChange?.(this.text);
          }),
        ],
      }),
    });
    this.mark();
  }

  get text(): string {
    return this.view.state.doc.toString();
  }

  /** Replace the whole text; `onChange` is called for what is typed alone. */
  setText(text: string): void {
    if (text === this.text) return;
    this.isSetting = true;
    this.view.dispatch({ changes: { from: 0, to: this.view.state.doc.length, insert: text } });
    this.isSetting = false;
  }

  setSchema(schema: unknown): void {
    this.view.dispatch({ effects: this.completion.reconfigure(completionOf(schema)) });
  }

  /** Underline what the daemon says about values, by their JSON Pointers. */
  setViolations(violations: readonly Violation[]): void {
    this.violations = violations;
    this.mark();
  }

  /** Move to a value and select it. */
  reveal(pointer: string): void {
    const place = placesOf(this.text)?.get(pointer);
    if (place === undefined) return;
    this.view.dispatch({
      selection: { anchor: place.from, head: place.to },
      effects: EditorView.scrollIntoView(place.from, { y: "center" }),
    });
    this.view.focus();
  }

  focus(): void {
    this.view.focus();
  }

  destroy(): void {
    this.view.destroy();
  }

  private mark(): void {
    this.view.dispatch(setDiagnostics(this.view.state, diagnose(this.text, this.violations)));
  }
}

function placesOf(text: string): Map<string, Place> | null {
  try {
    return parseWithPlaces(text).places;
  } catch {
    return null;
  }
}

function diagnose(text: string, violations: readonly Violation[]): Diagnostic[] {
  try {
    const { places } = parseWithPlaces(text);
    return violations.map(({ path, message }) => {
      const place = places.get(path) ?? nearest(places, path);
      return { from: place.from, to: place.to, severity: "error", message: `${path || "the bucket"} ${message}` };
    });
  } catch (problem) {
    if (!(problem instanceof JsonError)) throw problem;
    const to = Math.min(text.length, problem.at + 1);
    return [{ from: Math.min(problem.at, to), to, severity: "error", message: problem.message }];
  }
}

/** Return the place of the innermost value around a pointer that is not there. */
function nearest(places: Map<string, Place>, pointer: string): Place {
  let at = pointer;
  while (at && !places.has(at)) at = at.slice(0, at.lastIndexOf("/"));
  const place = places.get(at) as Place;
  // Of an object or array its opening bracket is enough.
  return { ...place, to: Math.min(place.to, place.from + 1) };
}

// --- completion

function completionOf(schema: unknown): ReturnType<typeof autocompletion> {
  return autocompletion({ override: [(context) => complete(schema, context)], icons: false });
}

function complete(schema: unknown, context: CompletionContext): CompletionResult | null {
  if (schema === undefined || schema === null) return null;
  const word = context.matchBefore(/"?[\w$.-]*/);
  const from = word?.from ?? context.pos;
  if (!context.explicit && from === context.pos) return null;
  const node = syntaxTree(context.state).resolveInner(context.pos, -1);
  const place = placeOf(context.state, node, from);
  if (place === null) return null;
  const found =
    place.kind === "key"
      ? keySuggestions(schema, place.path, place.present)
      : valueSuggestions(schema, place.path);
  if (found.length === 0) return null;
  const closing = context.state.sliceDoc(context.pos, context.pos + 1) === '"' ? 1 : 0;
  return { from, options: found.map((s) => optionOf(s, place.kind === "key", closing)), filter: true };
}

function optionOf(suggestion: Suggestion, isKey: boolean, closing: number): Completion {
  return {
    // What is typed may begin with the quote.
    label: suggestion.text,
    displayLabel: suggestion.label,
    detail: suggestion.detail,
    ...(suggestion.info ? { info: suggestion.info } : {}),
    apply: (view, _completion, from, to) => {
      const goesOn = /^\s*:/.test(view.state.sliceDoc(to + closing, to + closing + 20));
      const insert = suggestion.text + (isKey && !goesOn ? ": " : "");
      view.dispatch({
        changes: { from, to: to + (suggestion.text.endsWith('"') ? closing : 0), insert },
        selection: { anchor: from + insert.length },
        userEvent: "input.complete",
      });
    },
  };
}

interface CursorPlace {
  kind: "key" | "value";
  path: string[];
  present: string[];
}

/** Return where the cursor is: at a key of an object, or at a value. */
function placeOf(state: EditorState, node: SyntaxNode, from: number): CursorPlace | null {
  let at: SyntaxNode | null = node;
  let property: SyntaxNode | null = null;
  while (at && at.name !== "Object" && at.name !== "Array") {
    if (at.name === "Property") property = at;
    at = at.parent;
  }
  if (at === null) return null;
  const path = pathOf(state, at);
  if (at.name === "Array") return { kind: "value", path: [...path, "0"], present: [] };
  const name = property?.getChild("PropertyName");
  const isValue = name !== undefined && name !== null && state.sliceDoc(name.to, from).includes(":");
  if (isValue) return { kind: "value", path: [...path, nameOf(state, name)], present: [] };
  const present = at
    .getChildren("Property")
    .filter((other) => other.from !== property?.from)
    .flatMap((other) => other.getChild("PropertyName") ?? [])
    .map((other) => nameOf(state, other));
  return { kind: "key", path, present };
}

function pathOf(state: EditorState, node: SyntaxNode): string[] {
  const path: string[] = [];
  for (let at: SyntaxNode = node; at.parent; at = at.parent) {
    if (at.parent.name === "Property") {
      const name = at.parent.getChild("PropertyName");
      if (name) path.unshift(nameOf(state, name));
    } else if (at.parent.name === "Array") {
      let index = 0;
      for (let other = at.prevSibling; other; other = other.prevSibling) {
        if (!/^[[\],⚠]$/.test(other.name)) index++;
      }
      path.unshift(String(index));
    }
  }
  return path;
}

function nameOf(state: EditorState, node: SyntaxNode): string {
  try {
    return JSON.parse(state.sliceDoc(node.from, node.to)) as string;
  } catch {
    return names(`/${state.sliceDoc(node.from, node.to)}`)[0] ?? "";
  }
}
