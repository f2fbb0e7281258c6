# shellcheck shell=bash
# Sourced by the scripts beside it: strict mode, the repository as working
# directory, settings of the Go command, and timed steps.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
	echo "error: $*" >&2
	exit 1
}

command -v go >/dev/null || die "Go is not installed or not in PATH: see https://go.dev/doc/install"

# The version is set by script/build. Go's own stamp fails in a checkout that
# another user owns, and where git is missing.
GOFLAGS="$(go env GOFLAGS)"
[[ " $GOFLAGS " == *" -buildvcs=false "* ]] || GOFLAGS="${GOFLAGS:+$GOFLAGS }-buildvcs=false"
export GOFLAGS

# step NAME COMMAND...: run the command and print how long it took.
STEP=''
STEP_START=0
step() {
	STEP="$1"
	STEP_START=$SECONDS
	shift
	echo "==> $STEP"
	"$@"
	echo "    $STEP: $((SECONDS - STEP_START)) s"
	STEP=''
}

report_failed_step() {
	local code=$?
	if ((code != 0)) && [[ -n "$STEP" ]]; then
		echo "FAILED: $STEP, after $((SECONDS - STEP_START)) s" >&2
	fi
}
trap report_failed_step EXIT

# as_root COMMAND...: run as root, through sudo if need be.
as_root() {
	if ((EUID == 0)); then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo -- "$@"
	else
		die "must be root, or have sudo, to run: $*"
	fi
}

# install_packages PACKAGE...: install Debian packages.
install_packages() {
	command -v apt-get >/dev/null || die "please install: $* (no apt-get here)"
	echo "installing: $*"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq ||
		die "apt-get update failed; please install: $*"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" ||
		die "apt-get install failed; please install: $*"
}

# cc_works: whether a C program can be compiled and linked.
cc_works() {
	local cc dir ok=0
	cc="$(go env CC)"
	dir="$(mktemp -d)"
	printf '#include <pthread.h>\n#include <stdlib.h>\nint main(void) { return 0; }\n' >"$dir/a.c"
	# $cc may hold flags: it is split on purpose.
	# shellcheck disable=SC2086
	$cc -o "$dir/a" "$dir/a.c" -lpthread >/dev/null 2>&1 || ok=1
	rm -rf "$dir"
	return $ok
}

# need_cc: a C compiler, for the race detector. The program itself needs none.
need_cc() {
	cc_works && return
	install_packages gcc libc6-dev
	cc_works || die "the C compiler '$(go env CC)' does not work; the race detector needs one"
}

# need_servers: PostgreSQL and Mosquitto, which tests start for themselves (see
# internal/rig). Debian's package would make and start a PostgreSQL of its own.
need_servers() {
	local missing=()
	if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && ! command -v initdb >/dev/null; then
		missing+=(postgresql)
		[[ -e /etc/postgresql-common/createcluster.conf ]] || ! command -v apt-get >/dev/null || as_root sh -c \
			'mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf'
	fi
	[[ -x /usr/sbin/mosquitto ]] || command -v mosquitto >/dev/null || missing+=(mosquitto)
	command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
	((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

# need_browser: Chromium, in which tests look at the console, and letters for its
# three languages.
need_browser() {
	local missing=()
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
	if ! fc-list 2>/dev/null | grep -i cjk >/dev/null; then
		missing+=(fonts-noto-cjk fontconfig)
	fi
	((${#missing[@]} == 0)) || install_packages "${missing[@]}"
}

# golangci ARGUMENT...: run the pinned golangci-lint. Without cgo, like the
# program that ships, and so that one build of the tool serves every machine.
golangci() {
	CGO_ENABLED=0 go tool -modfile=tools.mod golangci-lint "$@"
}

# test_race ARGUMENT...: go test with the race detector, shuffled.
# The database library, a C program turned into Go, is left out of the race
# detector: under it the suite takes three times as long, and what the program
# does with the library is watched all the same. Many tests wait for a server
# most of the time: four at once keep two processors busy.
test_race() {
	CGO_ENABLED=1 go test -race -gcflags='modernc.org/...=-race=false' -shuffle=on -count=1 -parallel=4 "$@"
}

# side_by_side COMMAND...: run commands that wait more than they work at the same
# time, and print what each said.
side_by_side() {
	local command dir code=0 pids=()
	dir="$(mktemp -d)"
	for command in "$@"; do
		"$command" >"$dir/${command##*/}" 2>&1 &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || code=1
	done
	for command in "$@"; do
		cat "$dir/${command##*/}"
	done
	rm -rf "$dir"
	return $code
}
