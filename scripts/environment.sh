#!/usr/bin/env bash
# Makes ./.venv fit pyproject.toml and constraints.txt, or finds that it does and returns at once.
#
#   scripts/environment.sh run|dev
#
# run: what a job needs; dev: the tools of the tests as well. PYTHON names the interpreter to build with
# (default: the one of an existing usable .venv, otherwise python3). The stamp that says "ready" is written last,
# so that an interrupted installation is continued by the next call.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly wanted=${1:?usage: scripts/environment.sh run|dev}
readonly venv="$PWD/.venv" log=.venv/install.log
# A user's own settings must not redirect what is installed or imported here.
unset PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV

fail() {
    printf 'error: %s\n' "$@" >&2
    exit 1
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

is_suitable() { case "$(version_of "$1")" in 3.11 | 3.12) true ;; *) false ;; esac; }

# Interpreters on the PATH that would do, as a hint in error messages.
suggestion() {
    local candidate
    for candidate in python3.12 python3.11 python3; do
        if is_suitable "$candidate"; then
            echo "$candidate is on your PATH and would do: make PYTHON=$candidate …"
            return
        fi
    done
    echo "Install one of them, then name it: make PYTHON=/path/to/python3.11 …"
}

check_interpreter() {
    command -v "$1" >/dev/null ||
        fail "there is no interpreter $1. BraidRec needs Python 3.11 or 3.12." "$(suggestion)"
    is_suitable "$1" ||
        fail "$1 is Python $(version_of "$1" || echo '?'), but BraidRec needs 3.11 or 3.12, as DGL does." "$(suggestion)"
    "$1" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$1 has no venv module. On Debian and Ubuntu: sudo apt install python$(version_of "$1")-venv," \
            "or name another Python 3.11 or 3.12: make PYTHON=/path/to/python3.11 …"
}

# Usable: of a wanted version, has pip, and made at this very path (scripts inside a moved one point at the old).
venv_is_usable() {
    local asked=${PYTHON:+$(version_of "$PYTHON")}
    is_suitable "$venv/bin/python" || return 1
    [[ -z $asked || $asked == "$(version_of "$venv/bin/python")" ]] || return 1
    "$venv/bin/python" -c 'import pip' 2>/dev/null || return 1
    [[ ! -f $venv/location || $(<"$venv/location") -ef $venv ]]
}

specification() { cat pyproject.toml constraints.txt; }

is_ready() { [[ -f $venv/ready-$1 ]] && specification | cmp -s - "$venv/ready-$1"; }

# pip says hundreds of lines or nothing at all; this says one every 15 seconds while it works.
heartbeat() {
    local package
    while sleep 15 &>/dev/null && kill -0 $$ 2>/dev/null; do # silent, or a killed pulse would hold the output open
        package=$(grep -E '^ *(Collecting|Downloading|Processing|Installing) ' "$log" | tail -1 | cut -d : -f 1 | cut -c1-80)
        echo "  … $SECONDS s $package"
    done
}

install_packages() {
    local target=. pulse status=0
    [[ $wanted == dev ]] && target='.[dev]'
    echo "Installing BraidRec and its pinned dependencies into .venv; the first time this takes minutes (log: $log)"
    SECONDS=0
    heartbeat &
    pulse=$!
    # shellcheck disable=SC2064
    trap "kill $pulse 2>/dev/null || true" EXIT
    "$venv/bin/python" -m pip install --progress-bar off --disable-pip-version-check \
        --editable "$target" --constraint constraints.txt >"$log" 2>&1 || status=$?
    if ((status)); then
        tail -n 15 "$log" >&2
        fail "pip failed with status $status; the whole output is in $log"
    fi
    echo "Installed in $SECONDS s."
}

if [[ $wanted != run && $wanted != dev ]]; then fail "unknown kind of environment: $wanted (run or dev)"; fi
# Ray 2.60 hands the interpreter's path to a shell without quoting it; its workers would never start.
readonly unquoted='[^][[:space:]()<>{}&;|*?$`"'"'"'\#~!]*'
if [[ ! $PWD =~ ^$unquoted$ ]]; then
    fail "Ray cannot start workers from a path with spaces or shell signs in it: move the checkout out of $PWD"
fi
if [[ -n ${PYTHON:-} ]]; then check_interpreter "$PYTHON"; fi

if ! venv_is_usable; then
    PYTHON=${PYTHON:-python3}
    check_interpreter "$PYTHON"
    if [[ -e $venv ]]; then echo "Remaking .venv: it was moved, is broken, or is of another Python."; fi
    echo "Making .venv with $PYTHON ($(version_of "$PYTHON"))"
    "$PYTHON" -m venv --clear "$venv"
fi
if is_ready dev || is_ready "$wanted"; then exit 0; fi
echo "$venv" >"$venv/location"
install_packages
specification >"$venv/ready-$wanted"
