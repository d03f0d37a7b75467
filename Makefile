# mjhook: a C module for Lua 5.4 and LuaJIT, and the program mjhook-reconcile.
#
#   make                what "make install PREFIX=P DESTDIR=D" puts in place, and "make uninstall" takes away
#   make demo           installs what is missing (Debian), builds, shows it at work; ARGS="--set NAME=VALUE"
#   make test           the same, then every suite; ends with "N passed, N failed"
#   make check          the suites without installing anything; SUITES="c lua5.4 luajit faults postgres e2e"
#   make lint           format, luacheck, layers, words, cppcheck, clang-tidy, -Werror
#   make sanitize       the suites under AddressSanitizer and UBSan; sanitize-gc with a collector that never rests
#   make valgrind       the C suite under valgrind
#   make bench chaos    spec/*/run, with ARGS
#   make fuzz           mutated callbacks, answers, tokens, records and HTTP, sanitized; ARGS="wire|http SECONDS SEED CASE"
#   make deb            Debian packages in build/deb; deb-check installs, upgrades and removes them in a clean root
#   make builds-check   builds that users make; distros: the oldest and newest Debian; check-lua5.3
#   make release        checks that all places agree on the version, runs everything, builds tarball, rocks, packages
#   make doc format clean
#
# LUAS="5.4 5.1" picks the Luas (5.1 stands for LuaJIT; default: those two, if their
# headers are there; 5.3 and 5.5 when asked for), VARIANT=asan or FAULTS=1 another build, WERROR=1 is strict.

# With OPENRESTY_PREFIX, OpenResty's own LuaJIT is the Lua, and its site's directory the place.
OPENRESTY_PREFIX ?=
PREFIX ?= $(or $(OPENRESTY_PREFIX),/usr/local)
DESTDIR ?=
CFLAGS ?= -O2 -g
LDFLAGS ?=
INSTALL ?= install
PKG_CONFIG ?= pkg-config

# Each variant has a directory of its own, so that none rebuilds another.  They
# lie at the top because mjhook-reconcile finds lua/ from its own place.
VARIANT ?= $(if $(filter-out 0,$(FAULTS)),faults,release)
BUILD ?= build$(if $(filter-out release,$(VARIANT)),-$(VARIANT))

# ---- the Luas ----

# LuaRocks names an interpreter, LUA=..., and means that one Lua.
ifeq ($(origin LUA),command line)
LUAS ?= $(shell "$(LUA)" -e "print((not jit and _VERSION == [[Lua 5.1]] and [[PUC-]] or [[]]) .. _VERSION:match([[%d.%d]]))")
LUAS := $(LUAS)
endif
LUAS ?= $(if $(OPENRESTY_PREFIX),5.1)

# Headers, in the order of trust: what the caller says (LUAJIT_INC; LUA_INCDIR, for
# one Lua; OPENRESTY_PREFIX), pkg-config, the usual places.  Plain Lua 5.1 is no
# substitute for LuaJIT, so its directory is passed over.
pkg_incdir = $(shell for p in $(1); do $(PKG_CONFIG) --variable=includedir $$p 2>/dev/null && break; done)
first_with = $(patsubst %/$(1),%,$(firstword $(wildcard $(addsuffix /$(1),$(2)))))
KNOWN = 5.4 5.5 5.3 5.1
define find_lua
LUA$(2)_INCDIR ?= $$(call first_with,lua.h,$$(if $$(filter $(1),$$(LUAS)),$$(LUA_INCDIR)) \
	$$(call pkg_incdir,lua$(1) lua-$(1) lua$(2)) /usr/include/lua$(1) /usr/local/include/lua$(1))
LUA$(2)_INCDIR := $$(LUA$(2)_INCDIR)
INCDIR_$(1) = $$(LUA$(2)_INCDIR)
NAME_$(1) = Lua $(1)
endef
$(foreach v,5.4 $(filter 5.5 5.3,$(LUAS)),$(eval $(call find_lua,$(v),$(subst .,,$(v)))))
LUA51_INCDIR ?= $(call first_with,luajit.h,$(LUAJIT_INC) $(if $(filter 5.1,$(LUAS)),$(LUA_INCDIR)) \
	$(if $(OPENRESTY_PREFIX),$(OPENRESTY_PREFIX)/luajit/include/luajit-2.1, \
	$(call pkg_incdir,luajit)) /usr/include/luajit-2.1 /usr/local/include/luajit-2.1)
LUA51_INCDIR := $(LUA51_INCDIR)
INCDIR_5.1 = $(LUA51_INCDIR)
NAME_5.1 = LuaJIT
LUAS := $(strip $(or $(LUAS),$(if $(LUA54_INCDIR),5.4) $(if $(LUA51_INCDIR),5.1)))

# The program carries the whole of Lua, if it can: one dependency less for cron,
# and C modules such as cjson find every function of the API in it.
PROGRAM_LUA = $(firstword $(foreach v,$(KNOWN),$(filter $(v),$(LUAS))))
LUA_A ?= $(or $(if $(LUA_DIR),$(firstword $(wildcard $(LUA_DIR)/lib/liblua$(PROGRAM_LUA).a $(LUA_DIR)/lib/liblua.a))), \
	$(filter /%,$(shell $(CC) -print-file-name=liblua$(PROGRAM_LUA).a 2>/dev/null)))
LUA_A := $(strip $(LUA_A))
comma := ,
LUA_LIBS ?= $(if $(LUA_A),-Wl$(comma)--whole-archive $(LUA_A) -Wl$(comma)--no-whole-archive,-llua$(PROGRAM_LUA))
# LuaJIT's library is a shared one; OpenResty's is where the linker would not look.
ifeq ($(PROGRAM_LUA),5.1)
luajit_so = $(wildcard $(patsubst %/include/luajit-2.1,%/lib,$(INCDIR_5.1))/libluajit-5.1.so)
LUA_LIBS = $(if $(luajit_so),-L$(dir $(luajit_so)) -Wl$(comma)-rpath$(comma)$(dir $(luajit_so))) -lluajit-5.1
endif

# ---- flags: CFLAGS and LDFLAGS are the caller's, these are ours ----

WARN = -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 \
	$(if $(filter-out 0,$(WERROR)),-Werror)
HARDEN_release = -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 -fstack-protector-strong
HARDEN_faults = $(HARDEN_release) -DMJ_FAULTS
HARDEN_asan = -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
HARDEN = $(HARDEN_$(VARIANT))

# A library: where LuaRocks (or the caller) says by NAME_INCDIR and NAME_LIBDIR, then as pkg-config says, else by its name.
library = $(addprefix -I,$($(1)_INCDIR)) $(addprefix -L,$($(1)_LIBDIR)) \
	$(or $(shell $(PKG_CONFIG) --cflags --libs $(2) 2>/dev/null),-l$(3))
LIBRARIES := $(call library,LMDB,lmdb,lmdb) $(call library,CURL,libcurl,curl) \
	$(call library,CRYPTO,libcrypto,crypto) $(call library,ZLIB,zlib,z)
INCDIRS = $(filter -I% -D%,$(LIBRARIES))
LIBS = $(filter-out -I% -D%,$(LIBRARIES)) -lpthread -lm
# libpq is for one module alone, which is made when its header is there; POSTGRES=0 leaves it out, 1 insists.
PQ_LIBRARY := $(call library,PQ,libpq,pq)
PQ_LIBS = $(filter-out -I% -D%,$(PQ_LIBRARY))
POSTGRES ?= $(if $(shell printf '\043include <libpq-fe.h>\n' | $(CC) $(filter -I%,$(PQ_LIBRARY)) -E - >/dev/null 2>&1 && echo 1),1,0)
POSTGRES := $(POSTGRES)
WITH_POSTGRES = $(filter-out 0,$(POSTGRES))
# Debug information names no place of this machine: two builds are the same, byte by byte, wherever they are made.
COMPILE = $(CC) -std=c11 -D_GNU_SOURCE $(CPPFLAGS) -Isrc $(INCDIRS) $(CFLAGS) $(WARN) $(HARDEN) \
	-fPIC -fvisibility=hidden -pthread "-ffile-prefix-map=$(CURDIR)=."
LINK = $(CC) $(CFLAGS) $(HARDEN) -pthread -Wl,-z,relro,-z,now,--as-needed $(LDFLAGS)

# ---- what there is: every file is found, none is listed ----

# The core knows no Lua and is compiled once; the binding once per Lua.
BINDING = $(wildcard src/lua/*.c)
# libcurl is loaded when a request is made: it brings thirty libraries with it, and most passes make none.
CURL_O = $(BUILD)/obj/net/library.o
CORE = $(filter-out $(BINDING) src/cmd/% src/store/postgres/% src/net/library.c src/net/module.c,$(wildcard src/*/*.c src/*/*/*.c))
CORE_O = $(sort $(CORE:src/%.c=$(BUILD)/obj/%.o))
# A database's module is complete in itself: it has its own copy of what it needs of the core.
PQ_O = $(sort $(patsubst src/%.c,$(BUILD)/obj/%.o,$(filter-out %/module.c,$(wildcard src/store/postgres/*.c))))
PQ_CORE_O = $(filter $(addprefix $(BUILD)/obj/,base/% os/% auth/% domain/% store/tally.o store/entry.o store/records.o),$(CORE_O))
PQ_MODULES = $(if $(WITH_POSTGRES),$(LUAS:%=$(BUILD)/%/mjhook/store_postgres.so))
binding_o = $(sort $(BINDING:src/%.c=$(BUILD)/obj/$(1)/%.o))
MODULES = $(foreach m,core curl,$(LUAS:%=$(BUILD)/%/mjhook/$(m).so))
SPEC_MODULES = $(LUAS:%=$(BUILD)/%/mjhook/store_memory.so)
PROGRAM = $(if $(PROGRAM_LUA),$(BUILD)/bin/mjhook-reconcile)
spec_programs = $(sort $(patsubst spec/$(1)/%.c,$(BUILD)/$(1)/%,$(wildcard spec/$(1)/*_$(2).c)))
TESTS = $(call spec_programs,c,test) $(PQ_TESTS)
PQ_TESTS = $(if $(WITH_POSTGRES),$(call spec_programs,postgres,test))
PQ_BENCH = $(if $(WITH_POSTGRES),$(foreach w,bench chaos,$(call spec_programs,postgres,$(w))))
OTHERS = $(foreach d,bench fuzz chaos,$(call spec_programs,$(d),$(d))) $(PQ_BENCH)
# What has a header in spec/support is linked to all of them; what has none is a library to be preloaded.
SUPPORT_O = $(patsubst spec/%.h,$(BUILD)/spec/%.o,$(wildcard spec/support/*.h))

.PHONY: all postgres tests others demo test check lint sanitize valgrind bench fuzz chaos doc format completion clean install uninstall deps-ci faults-build \
	lint-format lint-luacheck lint-layers lint-words lint-cppcheck lint-tidy lint-werror luas FORCE
.DELETE_ON_ERROR:
.SECONDARY:

all: luas $(MODULES) $(PQ_MODULES) $(PROGRAM)
postgres: luas $(PQ_MODULES)
tests: $(TESTS) $(SPEC_MODULES)
others: $(OTHERS)

luas:
	@$(if $(LUAS),:,echo "mjhook: no headers of Lua 5.4 or LuaJIT found:" \
	  "set LUA54_INCDIR or LUA51_INCDIR, or on Debian install $(DEPS_BUILD)" >&2; exit 1)
	@$(if $(filter PUC-5.1,$(LUAS)),echo "mjhook needs Lua 5.4 or LuaJIT; $(LUA) is plain Lua 5.1." \
	  "With LuaRocks: luarocks --lua-version 5.1 config lua_interpreter luajit" >&2; exit 1)
	@$(foreach v,$(filter-out $(KNOWN),$(LUAS)),echo "mjhook needs Lua 5.4 or LuaJIT (LUAS=5.1); Lua 5.3 and 5.5 do;" \
	  "this is Lua $(v)" >&2; exit 1;)
	@$(foreach v,$(LUAS),$(if $(INCDIR_$(v)),,echo "mjhook: no headers of $(NAME_$(v))" >&2; exit 1;))
	@$(foreach v,$(filter-out $(LUAS),5.4 5.1),echo "mjhook: without $(NAME_$(v))" >&2;)

# Stamps: other flags compile everything again, other files link again.
FLAGS_NOW := $(strip $(COMPILE) $(foreach v,$(KNOWN),$(INCDIR_$(v))))
# Objects by their place below BUILD, which a command may give as a relative or as an absolute path.
LINK_NOW := $(strip $(LINK) $(LIBS) $(PQ_LIBS) $(LUA_LIBS) $(patsubst $(BUILD)/%,%,$(CORE_O) $(PQ_O) $(call binding_o,*)))
$(BUILD)/flags: WORDS = $(FLAGS_NOW)
$(BUILD)/linked: WORDS = $(LINK_NOW)
ifneq ($(FLAGS_NOW),$(file <$(BUILD)/flags))
$(BUILD)/flags: FORCE
endif
ifneq ($(LINK_NOW),$(file <$(BUILD)/linked))
$(BUILD)/linked: FORCE
endif
$(BUILD)/flags $(BUILD)/linked:
	@mkdir -p $(@D)
	@printf '%s\n' '$(WORDS)' >$@

# -MMD -MP: headers are found by the compiler, and one that is gone does no harm.
$(BUILD)/obj/%.o: src/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(COMPILE) -MMD -MP -c -o $@ $<

define for_lua
$(BUILD)/obj/$(1)/%.o: src/%.c $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(COMPILE) -I$$(INCDIR_$(1)) -MMD -MP -c -o $$@ $$<

# No liblua here: the interpreter that loads the module has it.
$(BUILD)/$(1)/mjhook/core.so: $(CORE_O) $(call binding_o,$(1)) $(BUILD)/linked
	@mkdir -p $$(@D)
	$$(LINK) -shared -Wl,-z,nodelete -o $$@ $$(filter %.o,$$^) $$(LIBS)

# Never unloaded: a name that libcurl still looks up in a thread of its own may outlive the last Lua state.
$(BUILD)/$(1)/mjhook/curl.so: $(CURL_O) $(BUILD)/obj/$(1)/net/module.o $(BUILD)/linked
	@mkdir -p $$(@D)
	$$(LINK) -shared -Wl,-z,nodelete -o $$@ $$(filter %.o,$$^) $$(LIBS)

$(BUILD)/$(1)/mjhook/store_postgres.so: $(PQ_CORE_O) $(PQ_O) $(BUILD)/obj/$(1)/store/postgres/module.o $(BUILD)/linked
	@mkdir -p $$(@D)
	$$(LINK) -shared -o $$@ $$(filter %.o,$$^) $$(PQ_LIBS) $$(LIBS)
endef
$(foreach v,$(KNOWN),$(eval $(call for_lua,$(v))))

$(PQ_O) $(foreach v,$(KNOWN),$(BUILD)/obj/$(v)/store/postgres/module.o): INCDIRS += $(filter -I%,$(PQ_LIBRARY))

# -E: the C modules that Lua code requires look for lua_* in the program.
$(BUILD)/bin/mjhook-reconcile: $(CORE_O) $(call binding_o,$(PROGRAM_LUA)) $(BUILD)/obj/$(PROGRAM_LUA)/cmd/reconcile.o $(BUILD)/linked
	@mkdir -p $(@D)
	$(LINK) -Wl,-E -o $@ $(filter %.o,$^) $(LUA_LIBS) $(LIBS) -ldl

# C programs of the spec see the core alone.
$(BUILD)/spec/%.o: spec/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(COMPILE) -Ispec/c -MMD -MP -c -o $@ $<

# The in-memory backend as a module for Lua, as a database's is one.
define memory_for_lua
$(BUILD)/spec/$(1)/support/store_memory.o: spec/support/store_memory.c $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(COMPILE) -Ispec/support -I$$(INCDIR_$(1)) -MMD -MP -c -o $$@ $$<

$(BUILD)/$(1)/mjhook/store_memory.so: $(BUILD)/spec/$(1)/support/store_memory.o $(BUILD)/spec/support/memory_backend.o $(PQ_CORE_O) $(BUILD)/linked
	@mkdir -p $$(@D)
	$$(LINK) -shared -Wl,-z,nodelete -o $$@ $$(filter %.o,$$^) $$(LIBS)
endef
$(foreach v,$(KNOWN),$(eval $(call memory_for_lua,$(v))))

$(TESTS) $(OTHERS): $(BUILD)/%: $(BUILD)/spec/%.o $(SUPPORT_O) $(CORE_O) $(CURL_O) $(BUILD)/linked
	@mkdir -p $(@D)
	$(LINK) -o $@ $(filter %.o,$^) $(LIBS)
$(PQ_TESTS) $(PQ_BENCH): $(PQ_O)
$(PQ_TESTS) $(PQ_BENCH): LIBS += $(PQ_LIBS)
$(BUILD)/spec/postgres/%.o: INCDIRS += $(filter -I%,$(PQ_LIBRARY))
$(BUILD)/fuzz/http_fuzz: LIBS += -lssl # it serves TLS itself

-include $(wildcard $(addprefix $(BUILD)/,obj/*/*.d obj/*/*/*.d obj/*/*/*/*.d spec/*/*.d spec/*/*/*.d))

# ---- install: touches the chosen places and nothing else ----

# LuaRocks gives one Lua and names its directories.
site = $(addsuffix /site/lualib,$(OPENRESTY_PREFIX))
define lua_places
LUADIR_$(1) ?= $$(or $$(LUADIR),$$(site),$$(PREFIX)/share/lua/$(1))
LIBDIR_$(1) ?= $$(or $$(LIBDIR),$$(site),$$(PREFIX)/lib/lua/$(1))
endef
$(foreach v,$(KNOWN),$(eval $(call lua_places,$(v))))
BINDIR ?= $(PREFIX)/bin
# A list that a command makes: run when the list is first asked for, and then no more.
once = $(eval $(1) := $(shell { $(2); } 2>/dev/null))$($(1))
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
LUA_FILES = $(wildcard $(addsuffix /*.lua,lua lua/* lua/*/* lua/*/*/*))
# The guides are man pages, too, once "make doc" has made them.
MAN_FILES = $(wildcard scripts/man/*.[1-8] $(BUILD)/doc/man/man7/*.7)
# What is read, copied or run from share/mjhook.
SHARE_DIRS = examples policies simulator console dev.d
SHARE_FILES = $(call once,SHARE_FILES,find $(SHARE_DIRS:%=scripts/%) scripts/mjhook.cgi -type f | LC_ALL=C sort)
SHARE_RUN = $(call once,SHARE_RUN,find $(SHARE_FILES) -perm -100)
# Where a shell looks for what completes a command; a distribution may have another place for zsh.
ZSHDIR ?= $(DATADIR)/zsh/site-functions
PLACE_mjhook = $(DATADIR)/bash-completion/completions
PLACE__mjhook = $(ZSHDIR)
PLACE_mjhook.fish = $(DATADIR)/fish/vendor_completions.d
# The first line of programs in Lua names the Lua that is there; a distribution wants its path.
LUA_PROGRAMS = $(call once,LUA_PROGRAMS,grep -lE '^\#!.* lua5\.4( |$$)' scripts/mjhook $(SHARE_FILES))
RUNS_WITH ?= /usr/bin/env -S $(if $(filter 5.1,$(PROGRAM_LUA)),luajit,lua$(PROGRAM_LUA)) -E

# The one list of what is installed, for "make install", "make uninstall", the rocks and
# the Debian packages: $(call installed,DO) is $(call DO,mode,file,place) of each.
define newline


endef
installed = $(foreach v,$(LUAS), \
	$(foreach f,$(LUA_FILES),$(call $(1),644,$(f),$(LUADIR_$(v))/$(f:lua/%=%))) \
	$(foreach f,$(filter $(BUILD)/$(v)/%,$(MODULES) $(PQ_MODULES)),$(call $(1),755,$(f),$(LIBDIR_$(v))/$(f:$(BUILD)/$(v)/%=%)))) \
	$(foreach f,$(PROGRAM) scripts/mjhook,$(call $(1),755,$(f),$(BINDIR)/$(notdir $(f)))) \
	$(foreach f,$(MAN_FILES),$(call $(1),644,$(f),$(MANDIR)/man$(subst .,,$(suffix $(f)))/$(notdir $(f)))) \
	$(foreach f,$(SHARE_FILES),$(call $(1),$(if $(filter $(f),$(SHARE_RUN)),755,644),$(f),$(DATADIR)/mjhook/$(f:scripts/%=%))) \
	$(foreach f,$(wildcard scripts/completion/*),$(call $(1),644,$(f),$(PLACE_$(notdir $(f)))/$(notdir $(f))))
put = @$(INSTALL) -D -m $(1) $(2) "$(DESTDIR)$(3)"$(newline)$(if $(filter $(LUA_PROGRAMS),$(2)), \
	@sed -i '1s|.*|\#!$(RUNS_WITH)|' "$(DESTDIR)$(3)"$(newline))
away = @rm -f "$(DESTDIR)$(3)"$(newline)
# Directories of ours that are empty now; those that others may use stay.
ours = $(foreach v,$(LUAS),"$(DESTDIR)$(LUADIR_$(v))/mjhook" "$(DESTDIR)$(LUADIR_$(v))/resty/mjhook" \
	"$(DESTDIR)$(LIBDIR_$(v))/mjhook") "$(DESTDIR)$(DATADIR)/mjhook"

install: all
	$(call installed,put)
	@echo "installed mjhook for $(foreach v,$(LUAS),$(NAME_$(v)),) programs in $(DESTDIR)$(BINDIR)"

# The module for PostgreSQL alone: a package of its own.
.PHONY: install-postgres
install-postgres: postgres
	$(foreach v,$(LUAS),$(call put,755,$(BUILD)/$(v)/mjhook/store_postgres.so,$(LIBDIR_$(v))/mjhook/store_postgres.so))

uninstall:
	$(call installed,away)
	@for d in $(ours); do test ! -d "$$d" || find "$$d" -depth -type d -empty -delete; done

# ---- Debian packages, by what they are for ----

DEPS_BUILD = gcc libc6-dev make lua5.4 liblua5.4-dev luajit2 libluajit2-5.1-dev lua-cjson liblmdb-dev \
	libcurl4-openssl-dev libssl-dev zlib1g-dev libpq-dev
DEPS_DEMO = $(DEPS_BUILD) nginx libnginx-mod-http-lua curl procps
DEPS_TEST = $(DEPS_DEMO) locales lua-busted lua-socket libfaketime cron logrotate openssl groff-base python3 lua-http lua-zlib busybox \
	redis-server zsh fish jq chromium lua-check postgresql pgbouncer nodejs $(if $(shell command -v npm),,npm)
DEPS_LINT = clang-format clang-tidy cppcheck lua-check luarocks git
DEPS_DOC = lua-ldoc mandoc lowdown
DEPS = scripts/dev/install-deps

deps-ci:
	@$(DEPS) $(DEPS_TEST) $(DEPS_LINT) $(DEPS_DOC)

DEPS_DEB = $(DEPS_BUILD) $(DEPS_DOC) debhelper dh-lua dpkg-dev lintian libpq-dev pkg-config
DEPS_DEB_CHECK = $(DEPS_DEB) mmdebstrap

# ---- things to run ----

# A second make each time: what was just installed is seen only by a new one.
AGAIN = +@$(MAKE) --no-print-directory
SUITES ?= c $(patsubst 5.1,luajit,$(patsubst 5.4,lua5.4,$(LUAS))) \
	$(if $(filter 5.4,$(LUAS)),$(if $(filter asan,$(VARIANT)),,faults $(if $(WITH_POSTGRES),postgres))) e2e
# The suite of that name kills processes of its own build, beside the one under test.
FAULTS_BUILD = build-faults
NEEDS = $(if $(filter faults,$(SUITES)),$(if $(filter $(BUILD),$(FAULTS_BUILD)),,faults-build))

demo:
	@$(DEPS) $(DEPS_DEMO)
	$(AGAIN) all
	@BUILD=$(BUILD) scripts/demo $(ARGS)

test:
	@$(DEPS) $(DEPS_TEST)
	$(AGAIN) check

# Specs on a Lua alone do not wait for the C tests.
check: all $(if $(filter-out lua%,$(SUITES)),tests,$(SPEC_MODULES)) $(NEEDS)
	@BUILD=$(BUILD) FAULTS_BUILD=$(FAULTS_BUILD) VARIANT=$(VARIANT) CC="$(CC)" SPECS="$(SPECS)" scripts/dev/run-tests $(SUITES)

faults-build:
	$(AGAIN) all VARIANT=faults BUILD=$(FAULTS_BUILD)

sanitize:
	@$(DEPS) $(DEPS_TEST)
	$(AGAIN) check VARIANT=asan

# The specs that call the C module from their own process: once with a collector that never rests, on both Luas, and once
# on Lua 5.3.
BINDING_SPECS ?= $(patsubst %,spec/%_spec.lua,answers binding callback callback_repeated cidr clock decisions hold \
	json_reader json_text listing metrics model redact refused store submit_unsent wire)
# (wire_spec measures the heap; it has such a collector for all else of it, and so in "make sanitize".)
.PHONY: sanitize-gc check-lua5.3
sanitize-gc:
	@$(DEPS) $(DEPS_TEST)
	$(AGAIN) check VARIANT=asan SUITES="lua5.4 luajit" SPECS="$(filter-out %/wire_spec.lua,$(BINDING_SPECS))" \
	  BUSTED_ARGS=--helper=spec/support/collect_hard.lua SUITE_TIMEOUT=1800

check-lua5.3:
	@$(DEPS) $(DEPS_TEST) lua5.3 liblua5.3-dev
	$(AGAIN) check LUAS="5.3 5.1" BUILD=build-5.3 SUITES=lua5.3 SPECS="$(BINDING_SPECS)"

valgrind: tests
	@$(DEPS) valgrind
	@BUILD=$(BUILD) VARIANT=$(VARIANT) VALGRIND=1 scripts/dev/run-tests c

bench: DEPS_HERE = $(DEPS_TEST) wrk postgresql
fuzz: DEPS_HERE = $(DEPS_BUILD)
fuzz: VARIANT = asan
chaos: DEPS_HERE = $(DEPS_TEST) patroni etcd-server python3-etcd
chaos: VARIANT = faults
bench fuzz chaos:
	@test -x spec/$@/run || { echo "make $@: there is no spec/$@/run, nothing was run" >&2; exit 1; }
	@$(DEPS) $(DEPS_HERE)
	$(AGAIN) all $(call spec_programs,$@,$@) $(if $(filter bench,$@),$(PQ_BENCH)) VARIANT=$(VARIANT)
	@BUILD=$(BUILD) VARIANT=$(VARIANT) spec/$@/run $(ARGS)

# The packages, in build/deb; and installed, used, upgraded and removed in a clean root that systemd boots in.
# Builds that users make: reproducible, clang, LTO, OpenResty's tree, musl.
.PHONY: builds-check
builds-check:
	@$(DEPS) $(DEPS_BUILD) clang musl-tools pkg-config nginx libnginx-mod-http-lua
	@scripts/dev/builds-check

.PHONY: deb deb-check
deb:
	@$(DEPS) $(DEPS_DEB)
	@scripts/dev/deb build/deb

deb-check:
	@$(DEPS) $(DEPS_DEB_CHECK)
	@scripts/dev/deb-check

# The same in a clean root of each Debian, where the packages are also built: the oldest and the newest versions of
# libraries and compiler that are claimed.
.PHONY: distros
DISTROS ?= bookworm trixie
distros:
	@$(DEPS) $(DEPS_DEB_CHECK)
	@for d in $(DISTROS); do BUILD_THERE=1 scripts/dev/deb-check $$d || exit 1; done

# One command makes a release, in build/release: see scripts/dev/release.
.PHONY: release
release: all
	@$(DEPS) $(DEPS_TEST) $(DEPS_LINT) $(DEPS_DOC) $(DEPS_DEB_CHECK) zip
	@scripts/dev/release $(ARGS)

doc:
	@$(DEPS) $(DEPS_DOC)
	scripts/doc/build $(BUILD)/doc

SOURCES = $(wildcard src/*/*.c src/*/*/*.c)
C_FILES = $(SOURCES) $(wildcard src/*/*.h src/*/*/*.h spec/*/*.[ch])
LUA_DIRS = $(wildcard lua spec scripts rockspec/*.rockspec)

lint: lint-format lint-luacheck lint-layers lint-words lint-cppcheck lint-tidy lint-werror

format:
	clang-format -i $(C_FILES)

lint-format:
	clang-format --dry-run -Werror $(C_FILES)

# Programs in Lua have no .lua at their end: their first line tells.
lint-luacheck:
	luacheck --quiet --no-color $(LUA_DIRS) \
	  $$(awk 'FNR == 1 && /^#!.*lua/ { print FILENAME }' $(wildcard scripts/* spec/*/* scripts/dev/* scripts/doc/*) 2>/dev/null)

lint-layers:
	scripts/dev/layers
	scripts/dev/layers --self-test

lint-words:
	scripts/dev/words

lint-cppcheck:
	cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	  -D_GNU_SOURCE -DLIBCURL_VERSION_NUM=0x075800 -Isrc $(SOURCES)

lint-tidy:
	printf '%s\n' $(sort $(SOURCES)) | xargs -P 2 -n 4 sh -c \
	  'clang-tidy --quiet "$$@" -- -std=c11 -D_GNU_SOURCE -DMJ_FAULTS -Isrc $(INCDIRS) $(filter -I%,$(PQ_LIBRARY)) -I$(LUA54_INCDIR) 2>/dev/null' tidy

# Also that a module shows the linker one name, the one that Lua looks for.
lint-werror:
	$(AGAIN) all tests others WERROR=1 BUILD=build-strict
	$(AGAIN) all tests others WERROR=1 VARIANT=faults BUILD=build-strict-faults
	@for so in build-strict/5.?/mjhook/*.so; do \
	  names=$$(nm -D --defined-only $$so | awk '{print $$3}'); \
	  test "$$names" = "luaopen_mjhook_$$(basename $$so .so)" || { echo "$$so shows: $$names" >&2; exit 1; }; done

# Checked in, since the shells' files have to be there without a Lua that runs; a spec compares them.
completion: all
	@set -e; for s in bash:mjhook zsh:_mjhook fish:mjhook.fish; do \
	  scripts/mjhook help --completion $${s%:*} >scripts/completion/$${s#*:}; done

clean:
	rm -rf build build-*
