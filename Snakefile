# The study as a graph, one rule a notebook: prepare -> train -> evaluate -> analyse -> report.
# `make study` runs it through lib/execute.py, which names the study in BATCHES_STUDY and removes
# stamps that no longer hold. Outputs are the stamps alone: Snakemake deletes the outputs of a job
# that failed or runs again, and checkpoints and executed notebooks have to outlive that.
import os
import sys

sys.path.insert(0, workflow.basedir)

from lib import execute, params

STUDY = params.load_frozen(os.environ["BATCHES_STUDY"])
JOBS = {(job.stage, job.key): job for job in execute.plan(STUDY)}
# The log opens before the folder changes, and `exec` leaves no shell between us and the stage.
RUN_STAGE = (
    "{{ cd {workflow.basedir:q}; exec {sys.executable:q} -u -m lib.execute stage {rule} "
    "{STUDY.name} {params.key:q}; }} > {log.text:q} 2>&1"
)


def notebook(stage):
    return ancient(str(execute.notebook_path(stage)))


wildcard_constraints:
    key="[^/]+",


rule all:
    input:
        "report/report.ok",


rule prepare:
    input:
        notebook("prepare"),
    output:
        "corpus/{key}/prepare.ok",
    log:
        notebook="corpus/{key}/01_prepare.ipynb",
        text="logs/prepare-{key}.log",
    params:
        key="{key}",
        stamp=lambda wildcards: JOBS["prepare", wildcards.key].stamp,
    priority: 3
    shell:
        RUN_STAGE


rule train:
    input:
        notebook("train"),
        lambda wildcards: f"corpus/{STUDY.runs[wildcards.key].train.corpus}/prepare.ok",
    output:
        "runs/{key}/train.ok",
    log:
        notebook="runs/{key}/02_train.ipynb",
        text="logs/train-{key}.log",
    params:
        key="{key}",
        stamp=lambda wildcards: JOBS["train", wildcards.key].stamp,
    threads: lambda wildcards: JOBS["train", wildcards.key].cores
    priority: 1
    shell:
        RUN_STAGE


rule evaluate:
    input:
        notebook("evaluate"),
        "runs/{key}/train.ok",
    output:
        "runs/{key}/evaluate.ok",
    log:
        notebook="runs/{key}/03_evaluate.ipynb",
        text="logs/evaluate-{key}.log",
    params:
        key="{key}",
        stamp=lambda wildcards: JOBS["evaluate", wildcards.key].stamp,
    threads: lambda wildcards: JOBS["evaluate", wildcards.key].cores
    priority: 2  # before the next training run: a mistake shows early, and so does the pace
    shell:
        RUN_STAGE


rule analyse:
    input:
        notebook("analyse"),
        expand("runs/{key}/evaluate.ok", key=STUDY.runs),
    output:
        "report/analyse.ok",
    log:
        notebook="report/04_analyse.ipynb",
        text="logs/analyse.log",
    params:
        key="",
        stamp=JOBS["analyse", ""].stamp,
    shell:
        RUN_STAGE


rule report:
    input:
        "report/analyse.ok",
    output:
        "report/report.ok",
    log:
        text="logs/report.log",
    params:
        key="",
        stamp=JOBS["report", ""].stamp,
    shell:
        RUN_STAGE
