# The study as a graph: prepare -> train -> evaluate -> analyse -> report. What depends on what is
# written once, in lib/study/plan.py; here every stage is the same rule.
# `make study` runs it through lib/study/run.py, which names the study in BATCHES_STUDY and removes
# stamps that no longer hold. Outputs are the stamps alone: Snakemake deletes the outputs of a job
# that failed or runs again, and checkpoints and executed notebooks have to outlive that.
import os
import sys

sys.path.insert(0, workflow.basedir)

from lib.study import grid, paths, plan

STUDY = grid.load_frozen(os.environ["BATCHES_STUDY"])
FOLDER = paths.study_dir(STUDY.name)
JOBS = {(job.stage, job.key): job for job in plan.plan(STUDY)}
# Evaluation comes before the next training run: a mistake shows early, and so does the pace.
PRIORITY = {"prepare": 3, "evaluate": 2, "train": 1}
# The log opens before the folder changes, and `exec` leaves no shell between us and the stage.
RUN_STAGE = (
    "{{ cd {workflow.basedir:q}; exec {sys.executable:q} -u -m lib.study stage {rule} "
    "{STUDY.name} {params.key:q}; }} > {log:q} 2>&1"
)


def below(path):
    return str(path.relative_to(FOLDER))


def job_of(stage, wildcards):
    return JOBS[stage, wildcards.get("key", "")]


wildcard_constraints:
    key="[^/]+",


rule all:
    input:
        "report/report.ok",


for stage, place in plan.PLACES.items():

    rule:
        name:
            stage
        input:
            lambda wildcards, stage=stage: [
                below(need.ok) for need in job_of(stage, wildcards).needs
            ],
        output:
            f"{place}/{stage}.ok",
        log:
            f"logs/{stage}-{{key}}.log" if "{key}" in place else f"logs/{stage}.log",
        params:
            key=lambda wildcards: wildcards.get("key", ""),
            stamp=lambda wildcards, stage=stage: job_of(stage, wildcards).stamp,
        threads: lambda wildcards, stage=stage: job_of(stage, wildcards).cores
        priority: PRIORITY.get(stage, 0)
        resources:
            gpu=lambda wildcards, stage=stage: job_of(stage, wildcards).gpus,
        shell:
            RUN_STAGE
