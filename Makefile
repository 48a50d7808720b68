# What CI calls and a laptop can call as well. Go alone builds and tests the
# project; the targets that need more say so and fail with one clear line.

GO      ?= go
PKGS    ?= ./...
FUZZFOR ?= 10s
NIGHTLY ?= 10m

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
VULNDB      = golang.org/x/vulndb@v0.0.0-20261105234957-e22db6528018

.PHONY: build check format vet staticcheck test race verifier fuzz golden bench vuln crash nightly repro fips

build:
	@GO="$(GO)" ./scripts/build counterseal

# Two builds of the commit by two strangers are the same bytes. About three minutes on
# two cores: both begin with empty caches.
repro:
	@GO="$(GO)" ./scripts/repro

check: format vet staticcheck test

format:
	@out=$$(gofmt -l bench cmd evtx internal rules sigma *.go); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet $(PKGS)

staticcheck:
	$(GO) run $(STATICCHECK) $(PKGS)

test:
	$(GO) test $(PKGS)

# The race detector needs a C compiler.
# What plays whole processes is left out: its code runs in this process in the others.
SLOW = TestScript|TestDemo|TestNoNamesAnywhere|TestNonInterference|TestPackageOfTheDemo|TestCanar|TestRemote|TestUnmaskByCommands|TestInspectorOpens|TestNameByCommands|TestDutyByCommands|TestCeremony|TestStolenServer|TestLiveAttempt|TestKill|TestPastRetention|TestFullDisk|TestGrantByCorrelation|TestChosenEvent|TestClockJumps|TestDirectoryFromBefore|TestAnOldBackup|TestReplayOfOriginals|TestSBOM|TestLongSyslogLine|TestUnmask|TestDuty|TestNameRefused|TestDisclosers|TestEraseOne|TestListedTold|TestNamesTold
# So are packages of one goroutine; what readers and matchers share has tests of its own.
ALONE = /internal/(demo|ocsf|packs|parse|pia|policy|query|report)$$|/sigma|/evtx$$|/rules$$|/cmd/counterseal$$
race:
	CGO_ENABLED=1 $(GO) test -race -short $$($(GO) list $(PKGS) | grep -vE '$(ALONE)')
	CGO_ENABLED=1 $(GO) test -race -short -run 'Concurrent|Shared' ./sigma ./evtx
	CGO_ENABLED=1 $(GO) test -race -short -skip '$(SLOW)' ./cmd/counterseal

# Everything that uses keys with the certified module, and anything not approved fails. A
# test that hangs is named after ten minutes; a run that is not what it says fails TestFIPS.
# What crashes, fills a disk or turns a clock uses no key in another way, and is left out.
UNKEYED = TestKill|TestPastRetention|TestFullDisk|TestClockJumps|TestNonInterference|TestNoNamesAnywhere|TestDemo|TestAnOldBackup|TestReplayOfOriginals|TestLongSyslogLine|TestSBOM
KEYLESS = /internal/(access|collect|demo|detect|event|index|ocsf|packs|parse|pia|pipeline|policy|query|quiet|scan|state)$$|/sigma|/evtx$$|/rules$$|/cmd/counterseal$$
fips:
	export COUNTERSEAL_REQUIRE=$${COUNTERSEAL_REQUIRE:+$$COUNTERSEAL_REQUIRE,}fips GOFIPS140=certified GODEBUG=fips140=only; \
		$(GO) test -short -timeout 10m $$($(GO) list $(PKGS) | grep -vE '$(KEYLESS)') && \
		$(GO) test -timeout 10m -skip '$(UNKEYED)' ./cmd/counterseal

# The second verifier is a module of its own, so that it stands alone.
verifier:
	@out=$$(gofmt -l docs/verifier); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	cd docs/verifier && $(GO) vet ./... && $(GO) test ./...

# Each fuzz target for FUZZFOR, from its committed seeds.
fuzz:
	@./scripts/fuzz $(FUZZFOR)

golden:
	$(GO) test ./internal/parse -update

# bench/ is a module of its own with the peers; docs/benchmarks.md names its tables.
bench:
	$(GO) test -run '^$$' -bench . -benchmem $(PKGS)
	cd bench && $(GO) vet ./... && $(GO) run -overlay overlay.json -tags naive .

# The database comes from the Go module proxy and is indexed here; where it
# cannot be had, one line says so.
vuln:
	@./scripts/vuln $(GOVULNCHECK) $(VULNDB)

# The long runs.
nightly:
	@./scripts/fuzz $(NIGHTLY)
	COUNTERSEAL_KILLS=1000 $(GO) test -count 1 -timeout 4h -run Kill ./internal/evidence ./internal/ledger ./cmd/counterseal
