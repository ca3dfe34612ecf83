/** A bucket as a tree: secrets masked until clicked, changed keys highlighted. */

import { useState } from "preact/hooks";
import type { JSX } from "preact";
import { complain } from "./ui.js";
import { child, isMask, isObject, names, Num, valueAt, type Json } from "./json.js";

/** Reads the real values of one key of the bucket. */
export type Reveal = (key: string) => Promise<Json | undefined>;

interface Props {
  value: Json;
  /** Keys at the top that have just changed. */
  changed: ReadonlySet<string>;
  reveal: Reveal;
}

const OPEN_DEPTH = 2;
const PAGE = 200;

export function Tree({ value, changed, reveal }: Props): JSX.Element {
  if (!isObject(value) || value.size === 0) return <p class="empty">The bucket is empty: {"{}"}</p>;
  return (
    <ul class="tree" aria-label="Keys of the bucket">
      {[...value].map(([key, item]) => (
        <Branch
          key={key}
          name={key}
          value={item}
          pointer={child("", key)}
          depth={1}
          isChanged={changed.has(key)}
          reveal={reveal}
        />
      ))}
    </ul>
  );
}

interface BranchProps {
  name: string;
  value: Json;
  pointer: string;
  depth: number;
  isChanged: boolean;
  reveal: Reveal;
}

function Branch({ name, value, pointer, depth, isChanged, reveal }: BranchProps): JSX.Element {
  const classes = isChanged ? "changed" : "";
  const label = <span class="key">{name}</span>;
  if (isMask(value)) {
    return (
      <li class={classes}>
        {label} <Secret pointer={pointer} reveal={reveal} />
      </li>
    );
  }
  const items = itemsOf(value);
  if (items === null) {
    return (
      <li class={classes}>
        {label} <Scalar value={value} />
      </li>
    );
  }
  const count = Array.isArray(value) ? `[${items.length}]` : `{${items.length}}`;
  if (items.length === 0) {
    return (
      <li class={classes}>
        {label} <span class="count">{Array.isArray(value) ? "[]" : "{}"}</span>
      </li>
    );
  }
  return (
    <li class={classes}>
      <details open={depth <= OPEN_DEPTH && items.length <= 20}>
        <summary>
          {label} <span class="count">{count}</span>
        </summary>
        <Items items={items} pointer={pointer} depth={depth} reveal={reveal} />
      </details>
    </li>
  );
}

function Items(props: {
  items: [string, Json][];
  pointer: string;
  depth: number;
  reveal: Reveal;
}): JSX.Element {
  const [limit, setLimit] = useState(PAGE);
  const { items, pointer, depth, reveal } = props;
  return (
    <ul>
      {items.slice(0, limit).map(([key, item]) => (
        <Branch
          key={key}
          name={key}
          value={item}
          pointer={child(pointer, key)}
          depth={depth + 1}
          isChanged={false}
          reveal={reveal}
        />
      ))}
      {items.length > limit && (
        <li>
          <button type="button" class="quiet" onClick={() => setLimit(limit + PAGE * 5)}>
            Show more of {items.length.toLocaleString("en")}
          </button>
        </li>
      )}
    </ul>
  );
}

function itemsOf(value: Json): [string, Json][] | null {
  if (Array.isArray(value)) return value.map((item, at) => [String(at), item]);
  return isObject(value) ? [...value] : null;
}

function Scalar({ value }: { value: Json }): JSX.Element {
  if (value instanceof Num) return <span class="json-number">{value.text}</span>;
  if (typeof value === "string") return <span class="json-string">{JSON.stringify(value)}</span>;
  return <span class="json-word">{String(value)}</span>;
}

function Secret({ pointer, reveal }: { pointer: string; reveal: Reveal }): JSX.Element {
  const [shown, setShown] = useState<Json | undefined>(undefined);
  const name = names(pointer).join(" / ");
  const show = async (): Promise<void> => {
    try {
      const key = names(pointer)[0] as string;
      const value = await reveal(key);
      setShown(value === undefined ? undefined : valueAt(new Map([[key, value]]), pointer));
    } catch (problem) {
      complain(problem);
    }
  };
  if (shown === undefined) {
    return (
      <button type="button" class="secret" aria-label={`Show the secret ${name}`} onClick={() => void show()}>
        ••••
      </button>
    );
  }
  return (
    <span class="shown-secret">
      <Scalar value={typeof shown === "object" && !(shown instanceof Num) ? JSON.stringify(plain(shown)) : shown} />{" "}
      <button type="button" class="quiet" aria-label={`Hide the secret ${name}`} onClick={() => setShown(undefined)}>
        Hide
      </button>
    </span>
  );
}

function plain(value: Json): unknown {
  if (value instanceof Num) return Number(value.text);
  if (Array.isArray(value)) return value.map(plain);
  return isObject(value) ? Object.fromEntries([...value].map(([k, v]) => [k, plain(v)])) : value;
}
