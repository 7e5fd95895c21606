SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Lists of Debian packages are root's to fetch.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo -n)
ARGS ?=
# The default model, and those that may answer for it where there is not time enough (UPSCALE_LADDER).
LADDER := runet bicubic_plus_plus bicubic

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 10

setup: $(READY)  ## make the virtual environment .venv with everything in it

$(READY): pyproject.toml constraints.txt deploy/system-packages
	PYTHON=$(PYTHON) deploy/system-packages
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group all
	touch $@

# Debian packages' files, not installed: the tests need the programs, nobody needs the daemons. A fresh machine has no
# lists of packages. $(call unpack,FOLDER,PACKAGES)
define unpack
rm -rf $(1) && mkdir -p $(1)
cd $(1) && { apt-get download -qq $(2) || { $(SUDO) apt-get update -qq && apt-get download -qq $(2); }; }
cd $(1) && for package in *.deb; do dpkg-deb -x $$package . || exit; done && rm *.deb
endef

$(BIN)/prometheus: | $(READY)
	$(call unpack,$(VENV)/debian,prometheus)
	mv $(VENV)/debian/usr/bin/prometheus $(VENV)/debian/usr/bin/promtool $(BIN)/
	rm -rf $(VENV)/debian

# The load balancer of tests/integration/test_two_hosts.py, with the libraries that few machines have.
$(BIN)/haproxy: deploy/haproxy/unpacked | $(READY)
	$(call unpack,$(VENV)/haproxy,haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1)
	install -m 755 $< $@ && $@ -v

demo: $(READY)  ## upscale a real frame to 4K, end to end, and show how the time was spent
	$(BIN)/python export/ --model runet
	$(BIN)/python -m deploy.demo $(ARGS)

serve: $(READY)  ## embedded Triton and gateway on ports 50051 (gRPC) and 9464 (/metrics), until Ctrl-C
	for model in $(LADDER); do \
	  test -d model_repository/$${model}_x3_compressed || $(BIN)/python export/ --model $$model || exit; \
	done
	exec $(BIN)/python -m deploy.local $(ARGS)

test: $(READY) $(BIN)/prometheus $(BIN)/haproxy  ## every check and every test
	$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)  ## formatting, style, types, imports, protos, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	$(MAKE) --no-print-directory proto
	git diff --exit-code -- upscale_client/v1

format: $(READY)  ## put the code into its usual form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(READY)  ## generate upscale_client/v1 from proto/
	$(BIN)/python -m grpc_tools.protoc -I upscale_client/v1=proto/upscale/v1 \
	  --python_out=. --pyi_out=. --grpc_python_out=. upscale_client/v1/upscale.proto

docs: $(READY)  ## write what docs/operations.md takes from the code and from docs/benchmarks
	$(BIN)/python -m service.reference
	$(BIN)/python -m benchmark sizing --page docs/operations.md

dashboards: $(READY)  ## write deploy/grafana/dashboards from the code and from docs/runbook.md
	$(BIN)/python -m deploy.grafana

bench: $(READY) peers  ## a frame by every way through the service, beside its peers, into out/serving.*
	test -d model_repository/runet_x3_compressed || $(BIN)/python export/ --model runet
	$(BIN)/python -m benchmark serving --quick --output out/serving --page out/serving.md $(ARGS)

chaos: $(READY)  ## break the service in ten ways under load; every frame is checked; docs/reliability.md
	$(BIN)/python -m benchmark chaos $(ARGS)

MINUTES ?= 20
soak: $(READY)  ## a mixed load for MINUTES (20); memory, descriptors and latency must stay what they are
	$(BIN)/python -m benchmark soak --minutes $(MINUTES) $(ARGS)

RUNS ?= 2400000
fuzz: $(READY)  ## give decoders, parsers and all else that takes bytes from others RUNS (2400000) inputs; docs/reliability.md
	nice -n 10 $(BIN)/python -m tests.fuzz --runs $(RUNS) $(ARGS)

# An environment of their own: their packages and ours do not agree.
peers: .venv-peers/.ready  ## make .venv-peers with LitServe and BentoML, which `benchmark serving` measures beside us

.venv-peers/.ready: benchmark/peers/requirements.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --requirement $<
	touch $@

lock: $(READY)  ## write the versions installed now to constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+cpu$$//; s/ @ .*//' > constraints.txt

clean:  ## remove everything that was made
	rm -rf $(VENV) .venv-peers out dist build .pytest_cache .ruff_cache .import_linter_cache
	find model_repository -mindepth 1 -not -name README.md -delete
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

.PHONY: help setup demo serve test lint format proto docs dashboards bench peers chaos soak fuzz lock clean
