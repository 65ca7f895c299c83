"""Training pairs: one module a source. A module that states a SOURCE is one; nothing else names it.

Such a module has `build_corpus(p)`, where p is lib.params.Prepare, which gives the corpus of one
fold as a ParallelCorpus, and raises ValueError in one line, naming file and row. Where it reads
files of a user it also has `look(p)`, which raises what the beginnings of these files show; where
languages may be drawn (p.more), `available(p)`, which gives the codes of all that there are.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from lib.sources.text import share

if TYPE_CHECKING:
    from lib.corpus import ParallelCorpus
    from lib.params import Prepare


@dataclass(frozen=True)
class Source:
    """Which parameters a source takes that not all take.

    files       a file of each language: needed
    folder      of its files, in place of a download
    translator  a checkpoint: needed
    columns     our names of columns that a file may name otherwise
    alone       whether pairs may exist in one language only (p.parallel is false)
    articles    whether rows may name their article, which p.split can hold out
    scratch     its build_corpus takes a second argument, a new folder for what memory cannot hold
    """

    files: bool = False
    folder: bool = False
    translator: bool = False
    columns: tuple[str, ...] = ()
    alone: bool = False
    articles: bool = False
    scratch: bool = False


# What alters a corpus that is held in memory -> the value that does not.
ALTERED = {"groups": 1.0, "switch": 0.0}


def stating(folder: Path, word: str) -> list[str]:
    """Names of a folder's modules that state `word` at their top level; nothing is imported."""
    states = re.compile(rf"^{word} = ", re.MULTILINE)
    files = sorted(folder.glob("*.py"))
    return [f.stem for f in files if states.search(f.read_text(encoding="utf-8"))]


@cache
def names() -> list[str]:
    """Every source, sorted."""
    return stating(Path(__file__).parent, "SOURCE")


def module(name: str) -> ModuleType:
    """The module of a source. Raises ValueError where there is none."""
    if name not in names():
        raise ValueError(f"source: {name!r} is unknown (expected one of {', '.join(names())})")
    return import_module(f"lib.sources.{name}")


def check(p: Prepare) -> None:
    """Raises ValueError where parameters do not go with the source."""
    source: Source = module(p.source).SOURCE
    wrong = f"do not go with source {p.source!r}"
    if bool(p.files) != source.files:
        expected = "one file a language" if source.files else "none"
        raise ValueError(f"files: {len(p.files)} files {wrong} (expected {expected})")
    wrong = f"does not go with source {p.source!r}"
    if p.folder and not source.folder:
        raise ValueError(f"folder: {p.folder!r} {wrong} (expected none)")
    if bool(p.translator) != source.translator:
        expected = "a checkpoint's name or folder" if source.translator else "none"
        raise ValueError(f"translator: {p.translator!r} {wrong} (expected {expected})")
    if not p.parallel and not source.alone:
        raise ValueError(f"parallel: false {wrong} (expected true)")
    if p.more and not hasattr(module(p.source), "available"):
        raise ValueError(f"more: {p.more} {wrong} (expected 0)")
    if p.more and not p.languages:
        raise ValueError(f"more: {p.more} needs languages that all have (expected some named)")
    if p.split == "article" and not source.articles:
        raise ValueError(f"split: 'article' {wrong} (expected group)")
    for name, none in ALTERED.items() if source.scratch else ():
        if (value := getattr(p, name)) != none:
            raise ValueError(
                f"{name}: {value:g} {wrong} (expected {none:g}: memory cannot hold it)"
            )
    for name in p.columns:
        if name not in source.columns:
            expected = ", ".join(source.columns) or "none"
            raise ValueError(f"columns: {name!r} {wrong} (expected {expected})")


def with_more(p: Prepare) -> Prepare:
    """The same, with p.more further languages named: the first in an order that depends on p.order
    alone, so that few are always a part of many. Raises ValueError where there are not so many."""
    if not p.more:
        return p
    rest = [code for code in module(p.source).available(p) if code not in p.languages]
    if p.more > len(rest):
        raise ValueError(f"more: {p.more} further languages (expected at most {len(rest)})")
    ordered = sorted(rest, key=lambda code: share(f"order {p.order} {code}"))
    return p.model_copy(update={"languages": [*p.languages, *ordered[: p.more]]})


def check_keep(p: Prepare, languages: Collection[str]) -> None:
    """Raises ValueError for a share of a language that the corpus does not have."""
    if unknown := sorted(set(p.keep) - set(languages)):
        raise ValueError(f"keep: {unknown[0]} is not a language of this corpus")


def look(p: Prepare) -> None:
    """Raises ValueError where the beginnings of a user's files show that they will not do."""
    made, p = module(p.source), with_more(p)
    if hasattr(made, "look"):
        made.look(p)


def most_groups(p: Prepare) -> int | None:
    """More groups than the corpus has, or as many; None where no number is known at once."""
    made = module(p.source)
    return made.most_groups(with_more(p)) if hasattr(made, "most_groups") else None


def build_corpus(p: Prepare, scratch: Path) -> ParallelCorpus:
    """The corpus that `p` describes. scratch: a folder that the caller removes."""
    check(p)
    made = module(p.source)
    p = with_more(p)
    if made.SOURCE.scratch:
        return made.build_corpus(p, scratch)
    corpus = made.build_corpus(p)
    if p.groups != ALTERED["groups"]:
        corpus = import_module("lib.sources.subset").nested(corpus, p.groups)
    if p.switch != ALTERED["switch"]:
        corpus = import_module("lib.sources.codeswitch").switched(corpus, p)
    return corpus
