"""Shell completion: the scripts, and the words for them.

The scripts call ``bucketctl completion words`` each time, so they need no update when commands
change, and offer the devices and jobs that exist.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from .. import output
from ..parser import Usage, may_name_bucket
from ..table.all import every
from ..table.daily import Command, Option, Options

BASH = r"""_bucketctl() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <("${COMP_WORDS[0]}" completion words --line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    [ "${#COMPREPLY[@]}" -gt 0 ] || compopt -o default 2>/dev/null
}
complete -F _bucketctl bucketctl
"""
ZSH = r"""#compdef bucketctl
_bucketctl() {
    local -a found before
    local begun="${(Q)words[CURRENT]}"
    begun="${begun#[\"\']}"  # of quotes that are still open
    before=("${(@Q)words[2,CURRENT-1]}")
    (( CURRENT > 2 )) || before=()
    found=("${(@f)$("${words[1]}" completion words -- "${before[@]}" "$begun" 2>/dev/null)}")
    found=("${(@)found:#}")
    if (( ${#found} )); then
        compadd -a found
    else
        _files
    fi
}
if [ "${funcstack[1]}" = _bucketctl ]; then
    _bucketctl "$@"
else
    compdef _bucketctl bucketctl
fi
"""
FISH = r"""function __bucketctl
    set -l words (commandline -opc)
    set -l found ($words[1] completion words -- $words[2..-1] (commandline -ct) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c bucketctl -f -a '(__bucketctl)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(options: Options) -> int:
    what, words = options.arguments[0], options.arguments[1:]
    if what == "words":
        line = options.get("line")
        for word in fitting(words) if line is None else fitting_line(line):
            output.write(word)
        return 0
    if what not in SCRIPTS or words:
        raise Usage(f"cannot complete for {what!r}: the shells are {', '.join(SCRIPTS)}")
    output.write(SCRIPTS[what].rstrip("\n"))
    return 0


def fitting(words: list[str]) -> list[str]:
    """Return the completions of the last word; none if it is a file or free text."""
    begun = words[-1] if words else ""
    known = _candidates(words[:-1], begun)
    return [word for word in dict.fromkeys(known) if word.startswith(begun) and "\n" not in word]


def fitting_line(line: str) -> list[str]:
    """Return the completions for bash: quoted, and without the part before bash's word breaks."""
    words, in_quotes = _split(line)
    # Assignments of variables may precede the command.
    while words and "=" in words[0]:
        words = words[1:]
    found = fitting(words[1:])
    if in_quotes:
        return found
    begun = words[-1] if words else ""
    cut = max(begun.rfind(":"), begun.rfind("=")) + 1
    return [_escaped(word[cut:]) for word in found]


def _split(line: str) -> tuple[list[str], bool]:
    """Return the words before the cursor, and whether the last is in quotes that are still open."""
    for closing in ("", '"', "'"):
        lexer = shlex.shlex(line + closing, posix=True)
        lexer.whitespace_split, lexer.commenters = True, ""
        try:
            words = list(lexer)
        except ValueError:
            continue
        begins_new = line[-1:].isspace() and not line.endswith("\\ ") and not closing
        return ([*words, ""] if begins_new else words), bool(closing)
    return [], False


def _escaped(word: str) -> str:
    safe = "-_./:=@%+,"
    return "".join(c if c.isalnum() or c in safe else f"\\{c}" for c in word)


def _candidates(before: list[str], begun: str) -> Iterable[str]:
    command, rest = _command(before)
    if command is None:
        return _names(before)
    if "--" in rest:
        return ()
    option = next((o for o in command.options if rest and rest[-1] in o.words), None)
    if option is not None and option.value:
        return _values(option, command, rest)
    if begun.startswith("-"):
        return _switches(command, rest)
    return _arguments(command, rest)


def _command(before: list[str]) -> tuple[Command | None, list[str]]:
    for count in (2, 1):
        for command in every():
            if command.name == " ".join(before[:count]) and len(before) >= count:
                return command, before[count:]
    return None, []


def _names(before: list[str]) -> Iterator[str]:
    """Yield the next word of the commands that begin with these words."""
    if before[:1] == ["help"]:
        before = before[1:]
    elif not before:
        yield from ("help", "--help", "--version")
    for command in every():
        words = command.name.split()
        if words[: len(before)] == before and len(words) > len(before):
            yield words[len(before)]


def _switches(command: Command, rest: list[str]) -> Iterator[str]:
    for option in command.options:
        if option.often or not set(option.words).intersection(rest):
            yield option.words[0]
    yield "--help"


def _values(option: Option, command: Command, rest: list[str]) -> Iterable[str]:
    from .. import completion_words

    if option.name == "lang":
        return ("typescript", "python")
    if option.name == "hold":
        return ("job", "device")
    if option.name == "format":
        return ("ndjson", "tar") if command.name == "export" else output.FORMS
    return completion_words.values(option.name, _given(command, rest))


def _arguments(command: Command, rest: list[str]) -> Iterable[str]:
    from .. import completion_words

    count = len([w for i, w in enumerate(rest) if not _belongs_to_option(command, rest, i)])
    if command.name == "completion":
        return SCRIPTS if count == 0 else ()
    given = _given(command, rest)
    if not count and "device" not in given and may_name_bucket(command):
        found = list(completion_words.buckets(given))
        return found if command.name == "run" else [*found, *_words(command, count, given)]
    return _words(command, count, given)


def _words(command: Command, count: int, given: dict[str, str]) -> Iterable[str]:
    from .. import completion_words

    return completion_words.arguments(command.name, count, given)


def _belongs_to_option(command: Command, rest: list[str], index: int) -> bool:
    before = rest[index - 1] if index else ""
    takes = any(option.value and before in option.words for option in command.options)
    return takes or rest[index].startswith("-")


def _given(command: Command, rest: list[str]) -> dict[str, str]:
    """Return the options with values that are already on the line, and the bucket named first."""
    takes = {word: o.name for o in command.options if o.value for word in o.words}
    given = {takes[word]: value for word, value in zip(rest, rest[1:]) if word in takes}
    words = [w for i, w in enumerate(rest) if not _belongs_to_option(command, rest, i)]
    if may_name_bucket(command) and "device" not in given and words:
        device, slash, job = words[0].partition("/")
        named = {"device": device, **({"job": job} if job else {})}
        given |= named if device and slash else {}
    return given
