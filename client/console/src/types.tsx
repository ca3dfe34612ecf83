/** The generated types of a schema, to be copied. */

import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call } from "./api.js";
import { complain, copy } from "./ui.js";

const LANGUAGES: [string, string][] = [
  ["typescript", "TypeScript"],
  ["python", "Python"],
];

export function Types(props: {
  automation: string;
  jsonSchema: unknown;
  defaults: string[];
}): JSX.Element | null {
  const { automation, jsonSchema, defaults } = props;
  const [language, setLanguage] = useState("typescript");
  const [made, setMade] = useState<{ text: string; problems: string[] } | null>(null);
  const schema = jsonSchema === undefined ? null : JSON.stringify(jsonSchema);
  useEffect(() => {
    if (schema === null) return undefined;
    let isGone = false;
    const body = JSON.stringify({ automation, language, json_schema: jsonSchema, defaults });
    call("POST", "/console/types", { body }).then(
      ({ members }) => !isGone && setMade(members as unknown as typeof made),
      complain,
    );
    return () => {
      isGone = true;
    };
  }, [schema, language]);
  if (made === null) return null;
  const [, title] = LANGUAGES.find(([id]) => id === language) as [string, string];
  return (
    <section aria-label="Generated types">
      <h2>Types</h2>
      <div class="actions start">
        <label>
          Language{" "}
          <select value={language} onChange={(event) => setLanguage(event.currentTarget.value)}>
            {LANGUAGES.map(([id, label]) => (
              <option key={id} value={id}>
                {label}
              </option>
            ))}
          </select>
        </label>
        <button type="button" onClick={() => void copy(made.text, `The types for ${title}`)}>
          Copy the types
        </button>
      </div>
      <pre class="code" tabIndex={0} aria-label={`Types for ${title}`}>
        {made.text}
      </pre>
      {made.problems.map((line) => (
        <p class="warning" key={line}>
          The types are wider than the schema: {line}
        </p>
      ))}
    </section>
  );
}
