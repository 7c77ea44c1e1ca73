# `make` alone installs, as LocalAI's image builds expect it; `make help` lists the targets, by the text behind ##.

SHELL := bash
.DEFAULT_GOAL := install
MAKEFLAGS += --no-print-directory

PYTHON_BIN := venv/bin/python

# The tools take their variables from the environment (devtools/arguments.py); make exports those of its command line.
# LANGUAGE counts only there: in the environment it is the user's locale.
ifneq ($(origin LANGUAGE),command line)
unexport LANGUAGE
endif
ADDR ?= 127.0.0.1:50051

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  make transcribe AUDIO=talk.mp3 OUT=talk.srt MODEL=Qwen/Qwen3-ASR-1.7B ALIGNER=Qwen/Qwen3-ForcedAligner-0.6B LANGUAGE=en"
	@echo "  BUILD_TYPE=cublas make install   (NVIDIA; hipblas for AMD, intel, l4t for Jetson, mps for Apple; empty or cpu for none)"

.PHONY: install
install: ## What `make` alone does: ./venv with what the backend needs, for BUILD_TYPE; quick when nothing changed
	@bash install.sh

.PHONY: install-dev
install-dev: ## The same, and what tests, eval, bench, soak and fuzz need
	@DEV=1 bash install.sh

.PHONY: proto
proto: protogen-clean install ## The protobuf stubs anew, from proto/backend.proto

.PHONY: protogen-clean
protogen-clean:
	@rm -f backend/wire/backend_pb2*

.PHONY: demo
demo: install ## A recording through the backend, as `make transcribe`
	@$(PYTHON_BIN) -m devtools.transcribe

.PHONY: transcribe
transcribe: install ## Recordings or folders: AUDIO OUT FORCE=1 MODEL ALIGNER LANGUAGE OPTIONS STREAM=1 SENTENCES=1 FORMAT=json|verbose_json|srt|vtt|lrc|elrc|txt|timed|srt_words|vtt_karaoke
	@$(PYTHON_BIN) -m devtools.transcribe

.PHONY: align
align: install ## The times of a known text: AUDIO TEXT=lyrics.lrc OUT MODEL ALIGNER LANGUAGE FORMAT=lrc|elrc|srt|vtt|verbose_json
	@$(PYTHON_BIN) -m devtools.transcribe.align

.PHONY: live
live: install ## Captions while somebody speaks: AUDIO=recording, or - for `arecord -f S16_LE -r 16000 -c 1 |`; MODEL LANGUAGE OPTIONS FORMAT
	@$(PYTHON_BIN) -m devtools.live

.PHONY: run
run: install ## The backend, in the foreground, at ADDR
	@bash run.sh --addr $(ADDR)

.PHONY: doctor
doctor: ## What this machine and this install can do, with remedies: MODEL ALIGNER OPTIONS JSON=1
	@bash run.sh --doctor $(if $(JSON),--json) $(if $(MODEL),--model "$(MODEL)") $(if $(ALIGNER),--aligner "$(ALIGNER)") $(if $(OPTIONS),--options "$(OPTIONS)")

.PHONY: test
test: install-dev ## What CI runs: lint, format, strict types, tests
	@bash test.sh

.PHONY: check
check: test ## The same as test

.PHONY: check-wheels
check-wheels: install-dev ## The wheel of every run-time pin on arm64 Linux, for each Python; asks the index: MACHINE=x86_64
	@$(PYTHON_BIN) -m devtools.check_wheels

.PHONY: test-gpu
test-gpu: $(if $(PYTHON),,install-dev) ## The tests that need a GPU; PYTHON=... runs them by that interpreter and installs nothing
	@$(or $(PYTHON),$(PYTHON_BIN)) -m pytest -m gpu

.PHONY: audit
audit: install ## Known advisories of what is installed, but those that SECURITY.md answers (pip-audit; needs the network)
	@$(PYTHON_BIN) -m venv build/audit
	@build/audit/bin/python -m pip install --disable-pip-version-check --quiet pip-audit==2.10.1
	@build/audit/bin/pip-audit --vulnerability-service osv --path venv/lib/python3*/site-packages \
	  $$(grep -oE '(PYSEC|CVE)-[0-9]+-[0-9]+|GHSA(-[0-9a-z]{4}){3}' SECURITY.md | sort -u | sed 's/^/--ignore-vuln /')

.PHONY: coverage
coverage: install-dev ## All tests, and the lines of backend/ that none of them reaches
	@$(PYTHON_BIN) -m pytest --cov --cov-report=term

.PHONY: sanitize
sanitize: install-dev ## The C kernels' tests under the address and undefined-behaviour sanitizers (gcc)
	@bash backend/engine/ops/csrc/sanitize.sh

.PHONY: format
format: install-dev ## Format the sources, and fix what lint can fix
	@venv/bin/ruff check --fix .
	@venv/bin/ruff format .

.PHONY: eval
eval: install-dev ## Accuracy of words and times: MANIFEST LIMIT MODEL ALIGNER OPTIONS="name:value ..." QUANTIZATION=int8 SYSTEMS="name: what=differs; ..." BASELINE=1 NONSPEECH=0|1 OUT MAX_WER
	@$(PYTHON_BIN) -m devtools.eval

.PHONY: eval-aligner
eval-aligner: install-dev ## Accuracy and speed of the aligner alone, beside the package's: MANIFEST ALIGNER; known texts: TEXTS=1 MODEL
	@$(PYTHON_BIN) -m devtools.eval.$(if $(TEXTS),known_text,alignment)

.PHONY: eval-instruments
eval-instruments: install-dev ## Which recorded instruments the detector takes for speech (fluidsynth, fluid-soundfont-gm)
	@$(PYTHON_BIN) -m devtools.eval.instruments

.PHONY: bench
bench: install-dev ## Speed and memory, beside the package's own way: SHAPE=demo|0.6b|1.7b FORMATS RUNS ONLY AGAINST=REV RIVALS QUICK=1 LONG=1 ROWS=1,8,32 GRAPHS=on|off PEERS="name=URL#model" PEER_COMMAND="name=cmd {audio}"
	@$(PYTHON_BIN) -m devtools.bench

.PHONY: soak
soak: install-dev ## Load, faults and leaks, each beside its goal: MINUTES STREAMS REQUESTS CANCELS KILLS ONLY SEED
	@$(PYTHON_BIN) -m devtools.stress.soak

.PHONY: fuzz
fuzz: install-dev ## Thousands of bad inputs through the running server: CASES SEED REPLAY=FILE BRIEF=1
	@$(PYTHON_BIN) -m devtools.stress.fuzz

.PHONY: demo-models
demo-models: install-dev ## Train the demo checkpoints again (espeak-ng; about two hours on two cores); FROM=FOLDER with asr, aligner: the stages with digital silence alone
	mkdir -p build/demo_models
	$(if $(FROM),cp -R $(FROM)/asr $(FROM)/aligner build/demo_models/,$(PYTHON_BIN) -m devtools.demo_models.train tower --threads 2)
	for stage in $(if $(FROM),,asr asr-again asr-polish) asr-silence asr-silence-long asr-silence-polish; do \
	  $(PYTHON_BIN) -m devtools.demo_models.train $$stage || exit; done & asr=$$!; \
	for stage in $(if $(FROM),,aligner) aligner-silence; do \
	  $(PYTHON_BIN) -m devtools.demo_models.train $$stage || exit; done & aligner=$$!; \
	trap 'kill $$asr $$aligner 2>/dev/null' INT TERM; \
	wait $$asr; asr=$$?; wait $$aligner && exit $$asr
	rm -rf test/models/asr test/models/aligner
	mkdir -p test/models
	cp -R build/demo_models/asr build/demo_models/aligner test/models/

.PHONY: demo-models-eval
demo-models-eval: install-dev ## Accuracy of the demo checkpoints, on recordings that no training used (espeak-ng): ONLY=voices|nobody|backgrounds|silence
	$(PYTHON_BIN) -m devtools.demo_models.evaluate $(if $(ONLY),--only $(ONLY))

.PHONY: recordings
recordings: install-dev ## Make the recordings in test/audio and their manifest again (espeak-ng)
	$(PYTHON_BIN) -m devtools.demo_models.recordings

.PHONY: package
package: install ## dist/qwen-asr: a folder that runs wherever it is moved; PORTABLE_PYTHON=true puts the interpreter into it
	@$(PYTHON_BIN) -m devtools.package folder

.PHONY: package-image
package-image: package ## dist/qwen-asr.tar: that folder as an image, for `local-ai backends install ocifile://...` or `docker load`
	@$(PYTHON_BIN) -m devtools.package image

.PHONY: clean
clean: protogen-clean ## Remove all that was built or installed, ./venv and dist too (./python stays)
	rm -rf venv venv.before dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* backend/engine/ops/csrc/*.o backend/engine/ops/csrc/libkernels.so*
	find . -name __pycache__ -type d -not -path './python/*' -prune -exec rm -rf {} +
