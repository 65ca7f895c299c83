"""The reference pages: what they show is what the code does."""

import re
import tempfile

import pytest

from lib import sources
from lib.benchmarks import heldout
from lib.params import Prepare
from lib.sampler import ARMS, Schedule
from lib.store import ROOT
from lib.study import cells, grid, inputs

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNABLE = "# runs as it is\n"


def fenced(page, kind):
    """The fenced blocks of a kind, without their fences."""
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def prose(page):
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def studies():
    """Blocks whose first line names a study file: (page, name, text)."""
    for page in PAGES:
        for block in fenced(page, "yaml"):
            if named := re.match(r"# params/([\w.+-]+\.yaml)\n", block):
                yield pytest.param(named[1], block, id=f"{page.name}-{named[1]}")


def snippets():
    """Blocks that say of themselves that they run."""
    for page in PAGES:
        for number, block in enumerate(fenced(page, "python")):
            if block.startswith(RUNNABLE):
                yield pytest.param(block, id=f"{page.name}-{number}")


@pytest.fixture
def sample(tmp_path):
    """A function fold -> the corpus of docs/sample-pairs.csv, as docs/first-data.md asks for it."""
    files = {"sample": "docs/sample-pairs.csv"}

    def built(fold):
        return sources.build_corpus(
            Prepare(source="pairs", files=files, folds=3, fold=fold), tmp_path
        )

    return built


def test_the_parameters_are_the_schemas():
    """`python -m lib.study parameters > docs/parameters.md` makes it."""
    page = (ROOT / "docs/parameters.md").read_text(encoding="utf-8")
    assert page == cells.reference()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    """Relative links name files that are there; a page of docs/ links to more than itself."""
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    inside = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    assert [link for link in inside if not (page.parent / link).exists()] == []


def test_the_index_names_every_page():
    """docs/README.md has a line for each page beside it."""
    index = ROOT / "docs/README.md"
    named = set(re.findall(r"\]\(([\w-]+\.md)\)", index.read_text(encoding="utf-8")))
    assert named == {page.name for page in index.parent.glob("*.md")} - {"README.md"}


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    """A path of the code in backticks is there: pages outlive modules otherwise."""
    named = re.findall(r"`((?:lib|tests|notebooks|params|speed)/[\w./-]+\.\w+)`", prose(page))
    made_by_readers = {"params/first.yaml"}
    assert [x for x in {*named} - made_by_readers if not (ROOT / x).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_machine(page):
    """No folder of one computer."""
    assert not re.search(r"/(home|root|tmp|work)/", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name, text", list(studies()))
def test_every_study_is_one(name, text, tmp_path):
    """What a page shows as a study file is accepted as it stands."""
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    assert grid.load_study(file).runs


def test_the_first_study_has_three_seeds_of_its_sample(tmp_path):
    """The study of docs/first-data.md: arms x seeds, each seed another fold, files that exist."""
    [text] = [x for x in fenced(ROOT / "docs/first-data.md", "yaml") if "params/first" in x]
    (tmp_path / "first.yaml").write_text(text, encoding="utf-8")
    study = grid.load_study(tmp_path / "first.yaml")
    inputs.check_paths(study)
    assert [p.fold for p in study.corpora.values()] == [0, 1, 2]
    assert len(study.runs) == 12


def test_the_page_shows_the_sample():
    """docs/first-data.md prints the committed file."""
    [shown] = fenced(ROOT / "docs/first-data.md", "csv")
    assert shown == (ROOT / "docs/sample-pairs.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("fold", range(3))
def test_the_sample_is_trained_and_tested_in_every_fold(sample, fold):
    """Two pairs are trained on in both languages, by every arm; the third is asked in both."""
    corpus = sample(fold)
    assert corpus.meta["counts"]["rows"] == {"de": 2, "en": 2}
    assert corpus.meta["dropped"] == {}
    for arm in ARMS:
        batch = Schedule(corpus.index, arm, batch_size=2, steps=3).batch(2)
        assert len(set(batch.pair.tolist())) == 2
    benchmark = heldout.load_benchmark(corpus)
    assert len(benchmark.questions) == 2 and len(benchmark.candidates) == 6


def test_a_batch_of_three_is_refused_as_the_page_says(sample):
    """The message in the page's table is the code's."""
    page = (ROOT / "docs/first-data.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError) as refused:
        Schedule(sample(0).index, "mono", batch_size=3, steps=1)
    assert f"`{refused.value}`" in page


@pytest.mark.parametrize("text", list(snippets()))
def test_a_snippet_runs_as_it_is(text, tmp_path, monkeypatch):
    """Pasted into an interpreter that starts in the project's folder."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    exec(compile(text, "snippet", "exec"), {"__name__": "__main__"})
