"""SQuAD and its translations: one file a language, parallel by question id.

Three formats, plain or .gz: SQuAD JSON (v1.1 and v2.0), and the same flat as JSON lines or parquet
(hub layout: id, title, context, question, answers{text, answer_start}). Flat files may also hold
answer_start itself, answerable, answer_sentence, passage_id (the paragraph's, the same in every
language) and suspect (a row that is not to be trusted).

The group is the paragraph: 59 % of SQuAD's questions share their answer sentence with another one,
and translations split sentences differently, so only whole paragraphs keep a question's answer out
of its negatives. The article, where files have titles, is the one of the file that names the
paragraphs: English titles, though a translation may have its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import regex

from lib.corpus import ParallelCorpus
from lib.mistakes import short
from lib.params import Prepare
from lib.sources import Source, files
from lib.sources.files import Record
from lib.sources.text import heading

SOURCE = Source(files=True, alone=True, articles=True)

# Ends of sentences: a full-width mark; another mark before white space, unless the next word is
# in lower case (abbreviations); a line's end. Closing quotes and brackets belong to the sentence.
END = regex.compile(r"""[。！？][」』”’）]*|[.!?।؟]+["'”’»)\]]*(?=\s)(?!\s+\p{Ll})|\n""")


@dataclass(frozen=True)
class Question:
    """A question in one language. paragraph: the file's own name of it; shared: whether this name
    is the same in every language. passage None: no sentence is known to hold the answer; moved:
    one does, although the answer is not where the file says. title: its article, as headings are
    spelled; empty where the file has none."""

    id: str
    text: str
    passage: str | None
    paragraph: str
    shared: bool
    answerable: bool
    suspect: bool
    moved: bool = False
    title: str = ""

    def fault(self, unanswerable: bool) -> str | None:
        """Why it cannot be used; None: it can."""
        if self.suspect:
            return "suspect"
        if not self.answerable and not unanswerable:
            return "unanswerable"
        return "no answer sentence" if self.passage is None else None


def build_corpus(p: Prepare) -> ParallelCorpus:
    """The corpus of one fold. Paragraphs are named by the English file
    (without it: by the first one), which is therefore read even if English is not asked for.

    Raises ValueError naming file and row."""
    return corpus(p, "squad", read(p))


def read(
    p: Prepare, search: bool = False, languages: Iterable[str] | None = None
) -> dict[str, list[Question]]:
    """language -> its questions, of `languages` (None: those of p); the one that names the
    paragraphs comes first. search: see `questions`."""
    every = files.by_language(p.files, ())
    languages = files.by_language(p.files, p.languages if languages is None else languages)
    first = "en" if "en" in every else min(every, default="")
    order = [first, *(x for x in languages if x != first)] if every else []
    found = {language: list(questions(every[language], p.passage, search)) for language in order}
    for language, own in found.items():
        moved, lost = sum(q.moved for q in own), sum(q.answerable and not q.passage for q in own)
        if moved or lost:
            print(
                f"{every[language]}: {moved} of {len(own)} answers are elsewhere than the file "
                f"says, {lost} nowhere (dropped)"
            )
    return found


def look(p: Prepare) -> None:
    """Raises ValueError for a file of another kind or, where it is flat, without a needed column
    in its first row; and for files that do not go with the languages."""
    for file in files.by_language(p.files, p.languages).values():
        look_at(file)


def look_at(file: str) -> None:
    """The same of one file."""
    if files.kind(file) != ".json":
        first = files.first(file)
        for column in ("id", "context", "question"):
            first[column]


def corpus(p: Prepare, source: str, questions: dict[str, list[Question]]) -> ParallelCorpus:
    """The corpus of one fold out of what was read. source: the name that its rows bear.
    meta["moved"] says how many answers were found elsewhere, by language."""
    languages = files.by_language(p.files, p.languages)
    made = files.corpus(p, source, languages, *rows(p, source, questions))
    moved = {language: sum(q.moved for q in questions[language]) for language in languages}
    return replace(made, meta=made.meta | {"moved": moved})


def rows(
    p: Prepare, source: str, questions: dict[str, list[Question]]
) -> tuple[list[dict], Counter]:
    """The rows of a corpus, and {(reason, language): number} of what was dropped."""
    kept, dropped = _rows(questions, p.unanswerable, source)
    if p.passage == "sentence":
        _name_sentences(kept)
    return kept, dropped


def _rows(
    read: dict[str, list[Question]], unanswerable: bool, source: str
) -> tuple[list[dict], Counter]:
    """Rows whose passage_id and group are the paragraph, and {(reason, language): number}. Those
    of an article without a title have no column `article`."""
    paragraph, article = name_paragraphs(read), name_articles(read)
    rows, dropped = [], Counter()
    for language, questions in read.items():
        for question in questions:
            if reason := question.fault(unanswerable):
                dropped[reason, language] += 1
                continue
            row = {
                "pair": question.id,
                "language": language,
                "question": question.text,
                "passage": question.passage,
                "passage_id": paragraph[question.id],
                "group": paragraph[question.id],
                "source": source,
            }
            title = article[question.id]
            rows.append(row | {"article": title} if title else row)
    return rows, dropped


# --- identity across languages -----------------------------------------------------------------


def name_paragraphs(read: dict[str, list[Question]]) -> dict[str, str]:
    """Question id -> name of its paragraph, the same in all languages.

    The first file names the paragraphs. A later file's paragraph takes the name that its first
    known question has; one without any keeps its own name, marked by the language."""
    first = next(iter(read), "")

    def own(question: Question, language: str) -> str:
        mark = "" if language == first or question.shared else f"{language}:"
        return mark + question.paragraph

    return _named(read, lambda question: question.paragraph, own)


def name_articles(read: dict[str, list[Question]]) -> dict[str, str]:
    """Question id -> title of its article, the same in all languages; "" where it has none.

    A later file's article takes the title that its first known question has, so that a translated
    title is no other article; a paragraph without a title that of its own first known question."""
    return _named(
        read,
        lambda question: (question.title, "" if question.title else question.paragraph),
        lambda question, _: question.title,
    )


def _named(
    read: dict[str, list[Question]],
    part: Callable[[Question], Hashable],
    own: Callable[[Question, str], str],
) -> dict[str, str]:
    """Question id -> the name of its part of a file: the one of the part's first question that an
    earlier file has, else its own, from its first question and its language."""
    named: dict[str, str] = {}
    for language, questions in read.items():
        parts: dict[Hashable, list[Question]] = {}
        for question in questions:
            parts.setdefault(part(question), []).append(question)
        for members in parts.values():
            known = (named[question.id] for question in members if question.id in named)
            name = next(known, "") or own(members[0], language)
            for question in members:
                named.setdefault(question.id, name)
    return named


def _name_sentences(rows: list[dict]) -> None:
    """Set passage_id to one name a sentence: questions of a paragraph share it if their sentences
    are equal in every language that both have, one at least.

    So a passage_id has one text in a language, whichever way a translation splits sentences."""
    texts: dict[str, dict[str, str]] = {}
    for row in rows:
        texts.setdefault(row["pair"], {})[row["language"]] = row["passage"]
    paragraph = {row["pair"]: row["group"] for row in rows}
    sentences: dict[str, list[tuple[str, dict[str, str]]]] = {}
    name = {}
    for pair in sorted(texts):
        passages, others = texts[pair], sentences.setdefault(paragraph[pair], [])
        sentence = next((s for s in others if _is_same(passages, s[1])), None)
        if sentence is None:
            sentence = pair, {}
            others.append(sentence)
        sentence[1].update(passages)
        name[pair] = sentence[0]
    for row in rows:
        row["passage_id"] = name[row["pair"]]


def _is_same(a: dict[str, str], b: dict[str, str]) -> bool:
    shared = a.keys() & b.keys()
    return bool(shared) and all(a[language] == b[language] for language in shared)


# --- reading one file --------------------------------------------------------------------------


def questions(file: str, passage: str, search: bool = False) -> Iterator[Question]:
    """The questions of a file; their passage is the answer's "sentence" or its "paragraph".

    search  how an answer that is not where the file says is found: where offsets count other units
            or are a little off (False), the nearest one is meant; where machine translation moved
            it (True), only one that is in its context exactly once is sure
    Raises ValueError naming file and row (of SQuAD JSON: the question's running number)."""
    first_row: dict[str, int] = {}
    numbers: dict[str, dict[str, int]] = {}
    for record in _articles(file) if files.kind(file) == ".json" else files.records(file):
        question = _question(record, numbers, passage, search)
        if question.id in first_row:
            raise record.fault(f"id {question.id!r} is already in row {first_row[question.id]}")
        first_row[question.id] = record.row
        yield question


def _articles(file: str) -> Iterator[Record]:
    """The questions of a SQuAD JSON file, flat."""
    document, row = files.record(file, 1, files.document(file)), 0
    for number, article in enumerate(document.parts("data")):
        title = article.values.get("title")
        named = {"title": title or f"article {number}", "untitled": not title}
        for paragraph in article.parts("paragraphs"):
            about = named | {"context": paragraph.raw("context")}
            for question in paragraph.parts("qas"):
                row += 1
                yield Record(file, row, question.values | about)


def _question(
    record: Record, numbers: dict[str, dict[str, int]], passage: str, search: bool
) -> Question:
    """A flat record's question. numbers: title -> context -> running number, filled here."""
    context, answer = record.raw("context"), _answer(record)
    place = answer and _found(record, context, *answer, search)
    answerable = _flag(record, "answerable")
    if answerable is None:
        impossible = _flag(record, "is_impossible")
        answerable = answer is not None if impossible is None else not impossible
    name, shared = record.values.get("passage_id"), True
    if name is None:
        title, shared = str(record.values.get("title", "")), False
        known = numbers.setdefault(title, {})
        name = f"{title}#{known.setdefault(context, len(known))}"
    by_place = passage == "sentence" and record.values.get("answer_sentence") is None
    return Question(
        id=record.key("id"),
        text=record.text("question"),
        passage=context if passage == "paragraph" else _sentence(record, place, answerable),
        paragraph=record.as_key(name, "passage_id"),
        shared=shared,
        answerable=bool(answerable),
        suspect=bool(record.values.get("suspect")),
        moved=by_place and bool(place) and place[0] != answer[0],
        title=_title(record),
    )


def _flag(record: Record, name: str) -> bool | None:
    """Whether something holds; None where the record does not say."""
    value = record.values.get(name)
    if value not in (None, True, False):  # 0 and 1 as well
        raise record.fault(f"{name} is {short(value)} (expected true or false)")
    return value if value is None else bool(value)


def _title(record: Record) -> str:
    untitled = record.values.get("untitled", False)
    return "" if untitled else heading(str(record.values.get("title") or ""))


def _answer(record: Record) -> tuple[object, str] | None:
    """(answer_start, text) of the first answer, as the file has them; None where there is none."""
    answer = record.values.get("answers", record.values)
    if isinstance(answer, list):
        answer = answer[0] if answer else {}
    answer = files.record(record.file, record.row, answer).values
    start, text = answer.get("answer_start"), answer.get("text", answer.get("answer"))
    if isinstance(start, list):
        start, text = (start or [None])[0], (text or [""])[0]
    return None if start in (None, -1) and not text else (start, str(text or ""))


def _found(
    record: Record, context: str, start: object, text: str, search: bool
) -> tuple[int, int] | None:
    """Where an answer begins and ends in its context; None where it is not there, or where the
    file says so (null, or -1 as str.find says it) and it is not searched for.

    Raises ValueError for a start that is no number, unless it is searched for."""
    if not search:
        if start in (None, -1):
            return None
        if type(start) is not int:
            raise record.fault(f"answer_start {start!r} is no whole number")
    if _is_inside(context, start, text) and (text or not search):
        if context.startswith(text, start):
            return start, start + len(text)
    at = _once(context, text) if search else _nearest(context, start, text)
    return None if at is None else (at, at + len(text))


def _once(context: str, text: str) -> int | None:
    return context.index(text) if text and context.count(text) == 1 else None


def _nearest(context: str, start: int, text: str) -> int | None:
    """The place of a text where `start` counts bytes of UTF-8 or units of UTF-16, as other
    programming languages do; else the one that is nearest to it."""
    if not text or text not in context:
        return None
    for code, width in (("utf-8", 1), ("utf-16-le", 2)):
        at = len(context.encode(code)[: width * max(start, 0)].decode(code, "ignore"))
        if context.startswith(text, at):
            return at
    places = (match.start() for match in regex.finditer(regex.escape(text), context))
    return min(places, key=lambda at: abs(at - start))


def _is_inside(context: str, start: object, text: str) -> bool:
    return type(start) is int and 0 <= start <= len(context) - max(len(text), 1)


def _sentence(record: Record, place: tuple[int, int] | None, answerable: bool) -> str | None:
    if not answerable:
        return None
    given = record.values.get("answer_sentence")
    if given is not None:
        return record.text("answer_sentence")
    return None if place is None else sentence(record.raw("context"), *place)


@lru_cache(maxsize=256)  # neighbouring questions share their context
def _cuts(context: str) -> list[int]:
    return [0, *(match.end() for match in END.finditer(context)), len(context)]


def sentence(context: str, start: int, end: int) -> str:
    """The sentence of `context` that holds characters start to end (several, where an answer
    runs over the end of one). A language without such marks (Thai) has one sentence a line.

    >>> sentence("It is 3.5 m. Really? Dr. who said so.", 6, 9)
    'It is 3.5 m.'
    >>> sentence("一。二！三", 2, 3)
    '二！'
    """
    cuts = _cuts(context)
    first = cuts[bisect_right(cuts, start, hi=len(cuts) - 1) - 1]
    return context[first : next(cut for cut in cuts if cut >= max(end, start + 1))].strip()
