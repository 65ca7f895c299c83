"""The command line of studies.

python -m lib.study run params/quick.yaml [--cores N] [--set stage.parameter=value]
python -m lib.study run params/quick.yaml --profile profiles/slurm      on a cluster
python -m lib.study tune params/quick.yaml [--write]   search its arms' settings (docs/tuning.md)
python -m lib.study check params/quick.yaml      what it would run; nothing is run
python -m lib.study plan params/quick.yaml [--memory GIB]   what its runs take of memory
python -m lib.study report params/quick.yaml     render again what was analysed
python -m lib.study report --from FOLDER         analyse and render from the ledger in a folder
python -m lib.study ledger params/quick.yaml     keep what a report needs of finished runs
python -m lib.study card params/quick.yaml RUN   the model card of a run
python -m lib.study push params/quick.yaml RUN owner/name   upload its model to the hub, private
python -m lib.study clean params/quick.yaml      remove its outputs
python -m lib.study predict                      what the law says, before results (docs/law.md)
python -m lib.study law                          the page of the law and its predictions
python -m lib.study index                        one page over all committed studies
python -m lib.study advise params/mine.yaml      what mixing should cost and gain, untrained
python -m lib.study compare A B [C ...] --benchmark xquad-r|FOLDER   encoders (docs/compare.md)
python -m lib.study parameters                   every parameter, as docs/parameters.md has them
python -m lib.study cell train                   the parameter cell of a stage's notebook
python -m lib.study stage STAGE STUDY [KEY]      one stage: what the Snakefile calls
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from lib import params, store
from lib.study import cells, choose, grid, ledger, paths
from lib.study.plan import BadNotebook, shown
from lib.study.run import clean, run_study, start
from lib.study.stage import StageFailed, run_stage


def main(arguments: list[str]) -> int:
    """The command line at the top of this module: 1 where a stage failed, 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        return options.do(options) or 0
    except (params.BadParameter, BadNotebook, store.Damaged, store.Foreign) as error:
        print(error, file=sys.stderr)
        return 2
    except (StageFailed, store.Busy) as error:
        print(error, file=sys.stderr)
    except OSError as error:
        named = f"{error.filename}: {error.strerror}" if error.filename else error
        print(named, file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lib.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, do: Callable, *names: str) -> None:
        command = commands.add_parser(name)
        command.set_defaults(do=do)
        for one in names:
            optional = {"nargs": "?", "default": ""} if one.startswith("[") else {}
            command.add_argument(one.strip("[]"), **ARGUMENTS.get(one, optional))

    where = ("--cores", "--profile", "--set")
    add("run", _run, "path", *where, "--from")
    add("tune", _tune, "path", *where, "--write")
    add("check", lambda o: _check(o.path, o.changes), "path", "--set")
    add("plan", _plan, "path", "--set", "--memory")
    add("report", _report, "[path]", "--from")
    add("ledger", _ledger, "path")
    add("card", _card, "path", "run")
    add("push", _push, "path", "run", "name")
    add("clean", lambda o: clean(o.path), "path")
    add("predict", _predict)
    add("law", _law)
    add("index", _index)
    add("advise", _advise, "path", "--set")
    add("compare", _compare, "encoders", "--benchmark")
    add("parameters", lambda _: print(cells.reference(), end=""))
    add("cell", lambda o: print(cells.cell(o.kind)), "kind")
    add("stage", lambda o: run_stage(o.study, o.stage, o.key), "stage", "study", "[key]")
    return parser


def _count(text: str) -> int:
    """A number of cores; anything else is one line of argparse."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} cores (expected a whole number from 1)")
    return int(text)


def _changes(text: str) -> list[str]:
    """Changes of a text, each beginning with stage.parameter=; values may hold blanks."""
    return re.split(r"\s+(?=\w+\.\w+=)", text.strip())


def _cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gib(text: str) -> float:
    """An amount of memory, of which there is some."""
    if not 0 < (value := float(text)) < 2**30:
        raise argparse.ArgumentTypeError(f"{text} is no amount of memory (expected GiB, above 0)")
    return value


ARGUMENTS = {
    "--cores": {"type": _count, "default": _cores(), "help": "CPU cores of this machine (all)"},
    "--profile": {"default": "", "help": "folder of a Snakemake profile: a cluster"},
    "--set": {
        "action": "extend", "default": [], "dest": "changes", "type": _changes,
        "metavar": "STAGE.PARAMETER=VALUE",
        "help": "in place of what the study file says; several may stand in one text",
    },
    "--memory": {"type": _gib, "default": 0.0, "help": "GiB of the device (this machine's)"},
    "--write": {"action": "store_true", "help": "the choice to the study file"},
    "--from": {"dest": "ledger", "default": "", "help": "folder with a ledger to take runs from"},
    "encoders": {"nargs": "*", "metavar": "ENCODER", "help": "folder, name@commit or STUDY:RUN"},
    "--benchmark": {"required": True, "help": "xquad-r, mlqa-r, or the folder of a benchmark"},
    "kind": {"choices": params.STAGES, "metavar": "STAGE"},
}  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    return run_study(options.path, options.cores, options.changes, options.profile, options.ledger)


def _plan(options: argparse.Namespace) -> None:
    from lib.study import needs

    study = grid.load_study(options.path, options.changes)
    print(needs.told(study, options.memory or needs.here()))


def _ledger(options: argparse.Namespace) -> None:
    print(f"ledger: {shown(ledger.write(grid.study_name(options.path)))}")


def _card(options: argparse.Namespace) -> None:
    from lib.study.card import card

    print(card(grid.study_name(options.path), options.run), end="")


def _push(options: argparse.Namespace) -> None:
    from lib.study.card import push

    print(push(grid.study_name(options.path), options.run, options.name))


def _check(path: str, changes: list[str]) -> None:
    print(grid.describe(grid.startable(path, changes)))


def _tune(options: argparse.Namespace) -> int:
    """Run the search of a study file, then show it; the choice is written only where asked for."""
    path = Path(options.path)
    if options.write and options.changes:
        raise params.BadParameter(
            f"{path}: --write does not go with --set (expected the file as it is searched: what is "
            "chosen would be of another study)"
        )
    search = grid.startable(path, options.changes, search=True)
    name = str(path.with_stem(search.name))  # `make clean` of this name removes the search
    code = start(search, name, options.cores, options.profile, params.VARIED)
    if not code:
        choose.conclude(search, options.path, options.write)
    return code


def _report(options: argparse.Namespace) -> int:
    """The report of a study rendered again, or that of a ledger analysed anew."""
    if bool(options.ledger) == bool(options.path):
        raise params.BadParameter("report: expected a study file, or --from and a folder")
    if options.path:
        return _render(options.path)
    study = ledger.restore(options.ledger)
    for stage in ("analyse", "report"):
        run_stage(study, stage, "")
    print(f"report: {shown(paths.report_dir(study) / 'index.html')}")
    return 0


def _predict(_: argparse.Namespace) -> None:
    from lib.study import predict

    predict.write()
    print(f"predictions: {shown(predict.FILE)}; commit them before anything that they are about")


def _law(_: argparse.Namespace) -> None:
    from lib.study import lawpage

    print(f"page: {shown(lawpage.make())}")


def _index(_: argparse.Namespace) -> None:
    from lib.study import index

    print(f"page: {shown(index.make())}")


def _advise(options: argparse.Namespace) -> None:
    from lib.study import advise

    print(advise.advise(options.path, options.changes))


def _compare(options: argparse.Namespace) -> None:
    from lib.study import compare

    page = compare.compare(options.encoders, options.benchmark)
    print(f"page: {shown(page)}")


def _render(path: str) -> int:
    from lib.study.report import render

    try:
        print(f"report: {shown(render(Path(path).stem))}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
