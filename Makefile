# The two commands of a newcomer are `make demo` and `make test`; each sets itself up.
PYTHON ?= python3
PREFIX ?= /usr/local
DIST ?= dist
BIN := .venv/bin
NODE := $(shell command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 && \
	node -e 'process.exit(process.versions.node.split(".")[0] < 18 ? 1 : 0)' && echo yes)

.PHONY: help venv tools node node-built console console-built console-docs lint test test-python test-node \
	test-console test-shuffled test-newest test-oldest \
	test-pythons test-armhf test-runners test-browser test-systemd test-packages test-fleet demo demo-fleet \
	crash abuse fuzz fleet-faults schemastore bench docs proofs audit install uninstall wheels npm zipapp deb clean

help:
	@echo "make demo    the login automation over a daemon that is killed in between"
	@echo "make demo-fleet  the same on two hosts that share three nodes of etcd"
	@echo "make test    all tests, Python and (where Node 18 or newer is) TypeScript"
	@echo "make test-shuffled  those in Python, in an order of their own in each module (SEED=… repeats one)"
	@echo "make test-newest  those in Python with the newest packages that pyproject.toml allows"
	@echo "make test-oldest   those in Python with the lowest versions that it allows"
	@echo "make test-pythons  a short suite of the Python client on each Python from 3.9 to 3.14"
	@echo "make test-armhf    the same on 32 bits with 64-bit time, under qemu (as root)"
	@echo "make test-console  the page of bucketctl console: its logic, and in Chromium what people do and attack"
	@echo "make test-systemd  the service, in a Debian that is booted for it (as root)"
	@echo "make test-fleet    the API and many hosts on etcd"
	@echo "make test-runners  the TypeScript client under vitest, jest, Bun and Deno"
	@echo "make test-browser  the Playwright examples with Debian's Chromium"
	@echo "make test-packages  the wheels and the npm package installed, the Debian package in a booted one"
	@echo "make install       as a service of this host, below PREFIX (/usr/local); DESTDIR"
	@echo "make uninstall     take that away again, and neither buckets nor changed settings"
	@echo "make lint    style, types, and who may import whom"
	@echo "make crash   the long form of the proofs that nothing is lost"
	@echo "make abuse   what misbehaving clients cost the others"
	@echo "make fuzz    requests that nobody would write, by the thousand"
	@echo "make fleet-faults  what a failing etcd cluster costs the hosts on it"
	@echo "make schemastore  250 schemas of SchemaStore with their documents, and the types of each"
	@echo "make bench   figures beside those of Redis, etcd, SQLite and plain files"
	@echo "make audit   what is known to be vulnerable in the packages that are locked"
	@echo "make docs    write the pages of docs/ that are made of the code"
	@echo "make proofs  run the commands of docs/PROOFS.md (PROOFS=… some of them), and write when each passed"
	@echo "make wheels npm zipapp  packages for pip and npm, and bucketctl as one file, into DIST (dist)"
	@echo "make deb     a Debian package for the release and architecture of this host, into DIST"
	@echo "make console the page of bucketctl console, into the Python client (Node 18 or newer)"
	@echo "make console-docs  its measurements, tables and pictures in docs/console.md (Node, Chromium)"
	@echo "make venv    only prepare .venv, with bucketd and bucketctl in it"
	@echo "make tools   the same, with what tests and checks need"
	@echo "make clean   remove everything that was built"

venv: .venv/.ready

.venv/.ready: pyproject.toml client/python/pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "bucketd needs Python 3.11 or newer; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Preparing .venv (once; about half a minute, longer on a busy machine) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock \
		-e client/python -e .
	@touch $@

# What it takes to change bucketd, and not to run it: four times as much.
tools: .venv/.tools

.venv/.tools: .venv/.ready
	@echo "Adding the tools for tests and checks (once; about half a minute) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	@touch $@

node: client/node/dist/index.mjs

client/node/node_modules/.ready: client/node/package.json client/node/package-lock.json
	@cd client/node && npm ci --silent --no-audit --no-fund
	@touch $@

client/node/dist/index.mjs: client/node/node_modules/.ready client/node/tsconfig.json \
		$(wildcard client/node/src/* client/node/src/*/*)
	@cd client/node && npm run --silent build

# --- the page of bucketctl console, which is data of the Python client

CONSOLE := client/python/bucketd_client/ctl/console/web/files.json

ifeq ($(NODE),yes)
console console-built: $(CONSOLE)
else
console:
	@echo "cannot build the console: Node 18 or newer is not here; install it and run make console" \
		"again, or install bucketd-client from a wheel, which has the page"; exit 1

console-built:
	@echo "Node 18 or newer is not here, so the page of bucketctl console is left out."
endif

client/console/node_modules/.ready: client/console/package.json client/console/package-lock.json
	@cd client/console && npm ci --silent --no-audit --no-fund
	@touch $@

$(CONSOLE): client/console/node_modules/.ready client/console/tsconfig.json \
		$(wildcard client/console/src/*) client/console/scripts/build.mjs
	@cd client/console && npm run --silent build

lint: tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# Both beside each other; Node's are shown behind the others, whole. What both use of the other's
# side is built before, since the client is taken away while it is built.
test: tools .venv/json-schema-suite console-built $(if $(NODE),node-built)
	@log=$$(mktemp) && { $(MAKE) --no-print-directory test-node test-console >"$$log" 2>&1 & node=$$!; \
	trap 'kill $$node; rm -f "$$log"; exit 130' INT TERM; \
	$(MAKE) --no-print-directory test-python; python=$$?; \
	wait $$node; node=$$?; cat "$$log"; rm -f "$$log"; exit $$((python | node)); }

# The TypeScript client under vitest, jest, Bun and Deno, which take a minute and 250 MB to install.
test-runners: node
	cd client/node/test/runners && npm ci --silent --no-audit --no-fund
	cd client/node && node --test test/runners.test.mjs

# The Playwright examples with Debian's Chromium, in an environment of their own.
test-browser: tools node
	@test -x .venv-browser/bin/pytest || { python3 -m venv .venv-browser && \
		.venv-browser/bin/pip install --quiet --disable-pip-version-check \
		playwright==1.65.2 pytest-playwright==0.10.0; }
	@test -d .venv-browser/node_modules/playwright || npm install --silent --no-audit --no-fund \
		--prefix .venv-browser playwright@1.65.1
	@.venv-browser/bin/pip install --quiet --disable-pip-version-check client/python
	$(BIN)/pytest -rs tests/test_browser_examples.py

test-python: tools .venv/json-schema-suite
	$(BIN)/pytest -n 4 --dist worksteal

# The public JSON Schema test suite, out of a source package; without it its tests are left out.
.venv/json-schema-suite: | venv
	@mkdir -p .venv/suite && cd .venv/suite && \
		../bin/pip download --quiet --disable-pip-version-check --no-deps \
			--no-binary jsonschema jsonschema==4.23.0 && \
		tar -xzf jsonschema-*.tar.gz && mv jsonschema-*/json/tests ../json-schema-suite || \
		echo "The JSON Schema test suite cannot be had, so its tests are left out."
	@rm -rf .venv/suite

ifeq ($(NODE),yes)
node-built: node
	@node client/node/scripts/example.mjs --build

test-node: venv node-built
	cd client/node && npm test --silent --ignore-scripts
else
test-node:
	@echo "Node 18 or newer is not here, so the TypeScript tests are left out."
endif

# What needs Chromium says so where there is none; CHROMIUM names one that is not /usr/bin/chromium.
ifeq ($(NODE),yes)
test-console: tools console-built
	cd client/console && npm test --silent && npm run --silent test:browser

console-docs: tools console-built
	cd client/console && CONSOLE_SCALE=1 npm run --silent test:browser && node scripts/tables.mjs
else
test-console:
	@echo "Node 18 or newer is not here, so the tests of the console are left out."
endif

# The suite with the newest versions that pyproject.toml allows, and with the lowest.
test-newest: .venv/json-schema-suite $(if $(NODE),node-built)
	@test -d .venv/newest || $(PYTHON) -m venv .venv/newest
	.venv/newest/bin/pip install --quiet --disable-pip-version-check --upgrade \
		--upgrade-strategy eager -e client/python -e '.[dev]'
	.venv/newest/bin/python -m pytest -n 4 --dist worksteal

test-oldest: .venv/json-schema-suite $(if $(NODE),node-built)
	@test -d .venv/oldest || $(PYTHON) -m venv .venv/oldest
	$(BIN)/python release/floors.py >.venv/oldest/floors.txt
	.venv/oldest/bin/pip install --quiet --disable-pip-version-check \
		-c .venv/oldest/floors.txt -e client/python -e '.[dev]'
	.venv/oldest/bin/python -m pytest -n 4 --dist worksteal

# The Pythons that this machine has; the others are named.
test-pythons: venv
	@sh tests/client/test_pythons.sh pythons

test-armhf: venv
	@sh tests/client/test_pythons.sh armhf

test-systemd: tools
	$(BIN)/pytest -m booted -vv -ra tests/system/test_units.py tests/system/test_booted.py

# Workers take tests from each other, so that the tests of a module may come in any order.
test-shuffled: tools .venv/json-schema-suite
	$(BIN)/pytest -n 4 --dist worksteal --random-order-bucket=module \
		$(if $(SEED),--random-order-seed=$(SEED))

# The whole API on etcd, and what hosts that share a cluster see of each other.
test-fleet: tools
	FLEET_SCALE=1 $(BIN)/pytest -n 2 tests/api tests/store/etcd

test-packages: tools
	$(BIN)/pytest -m booted -vv -ra tests/system/test_package.py \
		tests/release/test_artifacts.py

demo: venv
ifeq ($(NODE),yes)
	@$(MAKE) -s --no-print-directory node || echo "Going on without TypeScript."
endif
	@$(BIN)/python examples/demo.py

# Three nodes of etcd and two hosts, on this machine.
demo-fleet: venv
ifeq ($(NODE),yes)
	@$(MAKE) -s --no-print-directory node || echo "Going on without TypeScript."
endif
	@$(BIN)/python examples/fleet/demo.py

# The long proofs: killed, cut, failed, rotted, at full length (some need root).
crash: tools
	CRASH_SCALE=1 $(BIN)/pytest -p no:xdist -rs -s tests/store/file/crash

# One misbehaves after the other, and a client that behaves is timed meanwhile.
abuse: tools
	ABUSE_SCALE=1 $(BIN)/pytest -p no:xdist -s tests/server/abuse

# Requests that nobody would write, at length.
fuzz: tools
	FUZZ_SCALE=1 $(BIN)/pytest -p no:xdist -s tests/server/fuzz

# Nodes killed, cut off, slow and full, under two hosts.
fleet-faults: tools
	FAULT_SCALE=1 $(BIN)/pytest -p no:xdist -rs -s tests/store/etcd

# SchemaStore's schemas and documents, which are not ours to carry: fetched, at the commit of the list.
.venv/schemastore: tests/core/schemas/schemastore.txt | venv
	@rm -rf $@ && git init --quiet --bare $@ && \
		git -C $@ fetch --quiet --depth 1 https://github.com/SchemaStore/schemastore \
			$$(grep -oE '[0-9a-f]{40}' $< | head -1):refs/heads/main || \
		{ rm -rf $@; echo "SchemaStore cannot be fetched; SCHEMASTORE=DIR names a clone of it."; }

schemastore: tools $(if $(NODE),node-built) $(if $(SCHEMASTORE),,.venv/schemastore)
	SCHEMASTORE_SCALE=1 $(BIN)/pytest -p no:xdist -rs -s tests/core/schemas/test_schemastore.py \
		tests/client/test_schemastore_types.py

# Side by side with what one would use instead; peers that are not installed are named. Not in the
# daemon's own environment: portalocker imports redis where it finds it, which is a start and a half.
bench: venv $(if $(NODE),node-built)
	@test -d .venv/peers || $(BIN)/pip install --quiet --disable-pip-version-check \
		--target .venv/peers redis diskcache || true
	$(if $(NODE),@test -d bench/node/node_modules || npm ci --prefix bench/node --silent || true)
	@$(BIN)/python -m bench $(BENCH)

docs: venv
	@$(BIN)/python docs/generate.py

# The rows of docs/PROOFS.md that have the words of PROOFS; what passes gets its day and commit there.
proofs: tools $(if $(NODE),node-built)
	@$(BIN)/python release/proofs.py $(PROOFS)

install uninstall:
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" PYTHON="$(PYTHON)" sh systemd/install.sh $@

# Known vulnerabilities in what is locked. A package that cannot be looked up counts as a failure:
# an audit of nothing must not pass. It needs PyPI's and npm's own advisories, which mirrors lack.
audit: venv
	@test -d .venv/audit || $(BIN)/python -m venv .venv/audit
	@.venv/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements.lock
	cd client/node && npm audit

# --- to be installed elsewhere

wheels: tools console-built
	@mkdir -p $(DIST)
	$(BIN)/python -m build --quiet --no-isolation --outdir $(DIST) client/python
	$(BIN)/python -m build --quiet --no-isolation --outdir $(DIST) .

# Packing builds it.
npm: client/node/node_modules/.ready
	@mkdir -p $(DIST)
	cd client/node && npm pack --silent --pack-destination $(abspath $(DIST))

# Any Python from 3.9 runs it, so there is no bytecode in it.
zipapp: venv console-built
	@rm -rf build/zipapp && mkdir -p build/zipapp $(DIST)
	@cp -R client/python/bucketd_client LICENSE build/zipapp
	@cp client/python/bucketctl build/zipapp/__main__.py
	@find build/zipapp -name __pycache__ -prune -exec rm -r {} +
	$(BIN)/python -m zipapp --compress --python '/usr/bin/env python3' \
		--output $(DIST)/bucketctl.pyz build/zipapp
	@chmod 755 $(DIST)/bucketctl.pyz

deb:
	@DIST="$(DIST)" DEB_PYTHON="$(DEB_PYTHON)" sh release/deb/build.sh

clean:
	rm -rf .venv dist client/node/node_modules client/node/dist client/node/build build \
		client/console/node_modules client/console/build $(dir $(CONSOLE)) *.egg-info \
		client/python/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
