"""What the repository promises about itself: its tree, its notebooks, its list of versions."""

import ast
import csv
import json
import re
import statistics
import subprocess
import sys
import tomllib

import pytest

from lib.store import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def tree_paths(text):
    """Paths in a README's tree: the fenced block whose first line is `README.md ...`; a name and
    its comment are two spaces apart, and what is indented lies in the folder above."""
    block = re.search(r"```[a-z]*\n(README\.md\s.*?)```", text, re.DOTALL)
    found, folders = [], []
    for line in block[1].splitlines() if block else []:
        indent = len(line) - len(line.lstrip())
        folders = [(at, name) for at, name in folders if at < indent]
        names = re.split(r"\s{2,}", line.strip())[0].split()
        for name in names:
            found.append("".join(folder for _, folder in folders) + name)
        if len(names) == 1 and names[0].endswith("/"):
            folders.append((indent, names[0]))
    return found


def test_tree_paths():
    """Folders, files below them, several names in one line."""
    tree = "README.md   question\nlib/        code\n  a.py b.py   two\n  c/\n    d.py\nend"
    paths = ["README.md", "lib/", "lib/a.py", "lib/b.py", "lib/c/", "lib/c/d.py", "end"]
    assert tree_paths(f"x\n```\n{tree}\n```") == paths


def test_every_path_of_the_readme_exists():
    """A tree that no longer matches misleads."""
    if not (ROOT / "README.md").exists():
        pytest.skip("README.md is missing")
    paths = tree_paths((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(path):
    """No outputs, no counts, no machine's metadata; ids that say something and stay the same."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", cell["id"]), cell["id"]
        assert set(cell["metadata"]) <= {"tags", "alt"}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_there_are_six_notebooks():
    """One a stage, the reader's, and the page of the law."""
    if not NOTEBOOKS:
        pytest.skip("notebooks/ is empty")
    assert [path.stem for path in NOTEBOOKS] == ["01_prepare", "02_train", "03_evaluate",
                                                 "04_analyse", "05_explore", "06_law"]  # fmt: skip


def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_lock_pins_everything_exactly():
    """One version each, of no particular build, and no host named."""
    for line in locked():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line
    assert "torch==2.13.0" in locked()


def test_the_lock_holds_what_the_package_needs():
    """Every dependency, those of the extras too; `pretrained` is apart, with own pins."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    apart = project["optional-dependencies"].pop("pretrained")
    assert all(re.fullmatch(r"[a-z0-9]+==[0-9.]+", need) for need in apart)
    extras = [need for own in project["optional-dependencies"].values() for need in own]
    needs = project["dependencies"] + [x for x in extras if not x.startswith(project["name"])]

    def plain(line):
        return re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", line)[0]).lower()

    assert {plain(need) for need in needs} <= {plain(line) for line in locked()}


def test_what_is_installed_elsewhere_imports_nothing_else():
    """Modules of the wheel import each other relatively, and never `lib`, which is not there."""
    listed = set(re.findall(r'"batch_composition\.([\w.]+)"', (ROOT / "setup.py").read_text()))
    files = [ROOT / "lib" / f"{name.replace('.', '/')}.py" for name in listed]
    assert len(files) == 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            absolute = isinstance(node, ast.ImportFrom) and node.level == 0
            names = [node.module] if absolute else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.split(".")[0] == "lib"], file


CORE = sorted((ROOT / "lib").glob("*.py"))
MODULES = sorted((ROOT / "lib").rglob("*.py"))


def lines(path):
    return len(path.read_text(encoding="utf-8").splitlines())


def functions(path):
    """(name, definition, whether it and its class are public) of a module's functions."""
    found = []

    def visit(node, private):
        for child in ast.iter_child_nodes(node):
            hidden = private or child.name.startswith("_") if hasattr(child, "name") else private
            if isinstance(child, ast.FunctionDef):
                public = not private and (child.name == "__init__" or not hidden)
                found.append((f"{path.name}:{child.name}", child, public))
            elif isinstance(child, ast.ClassDef):
                visit(child, hidden)

    visit(ast.parse(path.read_text(encoding="utf-8")), False)
    return found


def test_the_core_is_read_in_an_hour():
    """Ten modules; on top of lib/ also languages, checkpoints, presets, words for mistakes."""
    names = "sampler losses encoder trainer metrics corpus benchmark search params store"
    own = [path for path in CORE if path.stem in names.split()]
    assert len(own) == 10 and {p.stem for p in CORE} - {p.stem for p in own} == {
        "__init__",
        "languages",
        "checkpoint",
        "mistakes",
        "presets",
    }
    assert sum(map(lines, own)) <= 2_700
    assert [path.name for path in MODULES if lines(path) > 500] == []
    sizes = [
        (d.end_lineno - min([d.lineno, *(x.lineno for x in d.decorator_list)]) + 1, d.name)
        for path in MODULES
        for d in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(d, ast.FunctionDef)
    ]
    assert [name for size, name in sizes if size > 40] == []
    assert statistics.median(size for size, _ in sizes) <= 8


def test_every_parameter_of_a_public_function_has_a_type():
    """So that a reader need not guess; self and cls are what they are."""
    untyped = [
        f"{name}({argument.arg})"
        for path in MODULES
        for name, definition, public in functions(path)
        if public
        for argument in (
            *definition.args.posonlyargs,
            *definition.args.args,
            *definition.args.kwonlyargs,
        )
        if argument.annotation is None and argument.arg not in ("self", "cls")
    ]
    assert untyped == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_cells_are_short(path):
    """At most 12 lines, parameters apart; what is longer belongs into lib."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [c for c in cells if c["cell_type"] == "code" and not c["metadata"].get("tags")]
    assert [c["id"] for c in code if len("".join(c["source"]).splitlines()) > 12] == []


def test_the_readme_is_short():
    """What is more is in docs/."""
    assert lines(ROOT / "README.md") <= 150


def test_a_stage_starts_without_what_only_its_notebook_needs():
    """Dozens of stages a study: half a second each adds up."""
    heavy = "pandas torch datasets pyarrow transformers scipy matplotlib".split()
    code = f"import sys, lib.study.__main__; print([x for x in {heavy} if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


REFERENCES = ROOT / "outputs" / "reference"
SECTIONS = {
    "quick": "## What the quick study shows",
    "xquad": "## What XQuAD-R shows",
    "pretrained": "## What a pretrained encoder shows",
}
studies = pytest.mark.parametrize("study", SECTIONS)


def section(study):
    """The section of docs/results.md about a study."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    return text.split(SECTIONS[study])[1].split("\n## ")[0]


def readme_table(study, head):
    """Rows of the section's table that begins with `head`, as lists of cells."""
    block = section(study).split(head)[1].split("\n\n")[0]
    return [[c.strip(" `") for c in line.split("|")[1:-1]] for line in block.splitlines()[2:]]


def reference_table(study, name):
    with open(REFERENCES / study / "tables" / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@studies
def test_the_readmes_figures_are_the_references(study):
    """Every headline figure is the committed table's, interval and all."""
    found = {
        (r["arm"], r["setting"]): r
        for r in reference_table(study, "quality")
        if r["metric"] == "ap"
    }
    table = readme_table(study, "| arm | mono | cross | multi |")
    assert len(table) >= 5
    for arm, *cells in table:
        for setting, cell in zip(("mono", "cross", "multi"), cells, strict=True):
            row = found[arm, setting]
            numbers = [f"{float(row[k]):.3f}" for k in ("estimate", "low", "high")]
            shown = [n.replace("0.", ".", 1) for n in numbers]
            assert cell == f"{shown[0]} [{shown[1]}, {shown[2]}]", (arm, setting)


def test_the_readmes_contrasts_are_the_references():
    """Each row of hybrid(0.5) less another arm: from scratch, twice, and pretrained."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split("| `hybrid(0.5)` less |")[1].split("\n\n")[0]
    shown = [line.strip("| ").split(" | ")[1:] for line in block.splitlines()[2:]]
    expected = [_contrasts(study) for study in ("xquad", "xquad-articles", "pretrained")]
    assert shown == [list(row) for row in zip(*expected, strict=True)]


@pytest.mark.parametrize(
    ("row", "points"),
    [
        ("more data?", [("rq1_size", 10), ("rq1_size", 100)]),
        ("110 languages?", [("rq2_cards", 4), ("rq2_cards", 110)]),
        ("larger encoders?", [("rq3_width", 0.13), ("rq3_width", 10.3)]),
        ("a language of few pairs?", [("rq4_zh", 1), ("rq4_da", 1)]),
    ],
)
def test_what_the_readme_says_of_each_question_is_as_committed(row, points):
    """Every value with its interval, in the order of its line."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    line = next(x for x in text.splitlines() if x.startswith(f"| {row} |"))
    asked = {"more data?": ("mono cost", "cross gain"), "110 languages?": ("cross gain",)}
    asked["larger encoders?"] = ("cross gain", "batch effect")
    expected = [
        signed(found, "value")
        for study, x in points
        for found in reference_table(study, "trend")
        if float(found["x"]) == x and found["contrast"] in asked.get(row, ("mono cost",))
    ]
    assert re.findall(r"[-+]\.\d{3} \[[^]]*\]", line) == expected and len(expected) >= 2


def test_what_the_readme_says_of_instructions_is_as_committed():
    """Right less swapped of the arm that was trained with them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    line = next(x for x in text.splitlines() if x.startswith("| instructions? |"))
    [found] = [
        row
        for row in reference_table("rq5_prompts", "choices")
        if (row["measure"], row["versus"], row["own"]) == ("cross mAP", "swapped", "True")
        and row["arm"] == 'hybrid(0.5), "same language"'
    ]
    assert re.findall(r"[-+]\.\d{3} \[[^]]*\]", line) == [signed(found)]


def test_what_the_readme_says_of_other_losses_is_as_committed():
    """Over mixed rows in one pool, hybrid(0.5) first."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    line = next(x for x in text.splitlines() if x.startswith("| other losses? |"))
    rows = differences("pretrained-rivals", "others")
    arms = ("hybrid(0.5)", "x-x, lakda", "x-x, distil", "x-x, xlco")
    expected = [rows[arm, "x-x", "multi"] for arm in arms]
    assert re.findall(r"[-+]\.\d{3} \[[^]]*\]", line) == expected


def differences(study, name):
    """(arm, versus, setting) -> what a table of comparisons says, as pages show it."""
    rows = reference_table(study, name)
    return {(r["arm"], r["versus"], r["setting"]): signed(r) for r in rows}


def _contrasts(study):
    """In the order of the README's rows."""
    rivals = {(r["arm"], r["versus"], r["setting"]): r for r in reference_table(study, "rivals")}
    less = [("mono", "mono"), ("mono", "cross"), ("mono", "multi"), ("cross", "cross")]
    rows = [rivals["hybrid(0.5)", *other] for other in less]
    batch_effect = reference_table(study, "primary")[2]
    for row in [*rows, batch_effect]:
        yield signed(row)


def signed(row, middle="difference", low="low", high="high"):
    """`+.012 [+.002, +.021]` of a table's row."""
    numbers = (f"{float(row[k]):+.3f}".replace("0.", ".", 1) for k in (middle, low, high))
    return "{} [{}, {}]".format(*numbers)


@pytest.mark.parametrize(
    ("place", "study", "name", "count"),
    [
        (1, "pretrained-temperature", "others", 4),
        (2, "pretrained-posthoc", "posthoc", 4),
        (3, "pretrained-rivals", "others", 7),
        (4, "pretrained-arms", "rivals", 10),
        (5, "pretrained-arms", "others", 2),
        (6, "pretrained-arms", "mechanism", 2),
    ],
)
def test_what_rivals_of_batches_bring_is_as_committed(place, study, name, count):
    """Each row of temperatures, maps after training, losses over parallel texts and further arms in
    docs/results.md."""
    rows = differences(study, name)
    block = section("pretrained").split("| difference | mono | cross | multi |\n")[place]
    lines = block.split("\n\n")[0].splitlines()[1:]
    assert len(lines) == count
    for line in lines:
        what, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        ends = what.replace("`", "").split(" \N{MINUS SIGN} ")
        pair = [end[1:-1] if end.startswith("(") else end for end in ends]
        assert cells == [rows[*pair, setting] for setting in ("mono", "cross", "multi")], what


def test_contrasts_at_one_temperature_are_as_committed():
    """Each row of the table in docs/results.md, and what the README says of it."""
    rows = reference_table("xquad-temperature", "temperatures")
    expected = [[r["contrast"], r["at"], signed(r)] for r in rows]
    assert readme_table("xquad", "| contrast | temperature | difference in mAP |") == expected
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Batch effect, one temperature for both: {expected[1][2]}." in readme


def test_what_the_readme_says_of_maps_is_as_committed():
    rows = differences("pretrained-posthoc", "posthoc")
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"mean taken away {rows['mono, centred', 'mono', 'multi']}." in readme
    arms = differences("pretrained-arms", "rivals")
    assert f"`hybrid(0.75)`) has {arms['hybrid(0.75)', 'mono', 'multi']} of that" in readme
    warm = differences("pretrained-temperature", "others")
    pool, within = (warm["hybrid(0.5)", "mono, temperature 0.05", s] for s in ("multi", "mono"))
    assert f"half as much, {pool}, where `mono` has" in readme
    assert f"behind within a language ({within})" in readme
    pool, across = (arms["en-en", "mono", setting] for setting in ("multi", "cross"))
    assert f"`en-en` less `mono`: {pool} in one pool, {across} across languages;" in readme
    pool, across = (arms["en-en, switched", "mono", setting] for setting in ("multi", "cross"))
    lead = differences("pretrained-arms", "others")["hybrid(0.5)", "en-en, switched", "multi"]
    said = f"translations, {pool} in one pool, {across} across, and `hybrid(0.5)` ahead of that by"
    assert f"{said} {lead} in one pool |" in readme


def test_what_training_all_layers_changes_is_as_committed():
    """Each seed's differences in its table in docs/results.md, by hand of both studies' runs."""
    block = section("pretrained").split("| `hybrid(0.5)` less | lower 8 layers frozen |")[1]
    table = block.split("\n\n")[0].splitlines()[2:]
    assert len(table) == 4
    for line in table:
        name, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        versus, _, setting = name.replace("`", "").partition(", ")
        settings = (
            [setting] if setting in ("mono", "cross", "multi") else ["mono", "cross", "multi"]
        )
        for study, cell in zip(("pretrained", "pretrained-full"), cells, strict=True):
            runs = {(r["arm"], r["seed"]): r for r in reference_table(study, "runs")}
            gaps = [
                sum(
                    float(runs["hybrid(0.5)", seed][s]) - float(runs[versus, seed][s])
                    for s in settings
                )
                / len(settings)
                for seed in "01"
            ]
            shown = ", ".join(f"{gap:+.3f}".replace("0.", ".", 1) for gap in gaps)
            assert cell == shown, (study, name)


def test_what_came_of_rotations_is_as_committed():
    """Each row of its table in docs/law.md, predictions beside results."""
    rows = {(r["target"], r["contrast"]): r for r in reference_table("law", "outcomes")}
    block = (
        (ROOT / "docs" / "law.md").read_text(encoding="utf-8").split("| alignment | mono cost |")[1]
    )
    table = block.split("\n\n")[0].splitlines()[2:]
    assert len(table) == 3
    for target, line in zip(("turn0", "turn40", "turn60"), table, strict=True):
        alignment, *cells = (cell.strip() for cell in line.split("|")[1:-1])
        own = [rows[target, name] for name in ("mono cost", "cross gain", "multi gain")]
        assert alignment.split(",")[0] == f"{float(own[0]['alignment']):.2f}".lstrip("0")
        expected = [
            shown
            for row in own
            for shown in (signed(row, "value", "value_low", "value_high"), signed(row, "estimate"))
        ]
        assert cells == expected, target


@studies
def test_the_readmes_verdicts_are_the_references(study):
    """The claims and verdicts are those that the committed tables hold, all of them."""
    claims = [[row["claim"], row["verdict"]] for row in reference_table(study, "claims")]
    assert readme_table(study, "| claim | verdict |") == claims


@studies
def test_the_reference_holds_only_what_a_reader_opens(study):
    """Pages under 2 MB, figures and tables, and the ledger; nothing of a machine's paths."""
    files = [f for f in (REFERENCES / study).rglob("*") if f.is_file()]
    assert len(files) > 30
    for file in files:
        of_ledger = "ledger" in file.relative_to(REFERENCES / study).parts
        kinds = {".parquet"} if of_ledger else {".html", ".png", ".svg", ".tex"}
        assert file.suffix in {".csv", ".json", *kinds}, file
        assert file.stat().st_size < (300_000 if of_ledger else 2_000_000), file
        if file.suffix in (".html", ".json", ".csv"):
            assert not re.search(r"/(home|root|tmp|work)/", file.read_text(encoding="utf-8")), file


def test_the_xquad_report_shows_what_others_published():
    """The paper's rows stand in it, marked as published, and what is known of the data's topics."""
    page = (REFERENCES / "xquad" / "index.html").read_text(encoding="utf-8")
    assert page.count("published: XLM-R") == 3 and "<strong>Note.</strong>" in page
