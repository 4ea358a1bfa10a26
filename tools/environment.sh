# Sourced by demo.sh and test.sh: the virtual environment, and what is installed in it.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${RAZORDEPLOY_VENV:-$repository/.venv}
case $venv in
    /*) ;;
    *) venv=$PWD/$venv ;;
esac

say() { printf '%s\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# The first python of a version that razordeploy runs on; PYTHON, where it is set, is the only one asked.
find_python() {
    local candidate seen=""
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
        if ! command -v "$candidate" >/dev/null 2>&1; then
            continue
        fi
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
        seen="$seen $candidate ($("$candidate" -V 2>&1 || true))"
    done
    fail "expected Python 3.10 to 3.13, found:${seen:- none}; install one, or name it: PYTHON=/path/to/python3.11"
}

# install EXTRAS: the package, editable, with these extras and the pinned versions. Does nothing where that is so.
install() {
    local extras=$1 python stamp=$venv/.razordeploy-installed key
    if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        python=$(find_python) || exit $?
        say "environment: making $venv ($("$python" -V))"
        "$python" -m venv "$venv" || fail "no virtual environment at $venv; on Debian and Ubuntu: apt install python3-venv"
    fi
    # What the installed packages follow from: this checkout, its requirements.
    key=$(cd "$repository" && "$venv/bin/python" -c '
import hashlib, pathlib, sys
files = ("pyproject.toml", "requirements/constraints.txt")
print(hashlib.sha256(b"".join([sys.argv[1].encode(), *(pathlib.Path(f).read_bytes() for f in files)])).hexdigest())
' "$repository")
    if [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$key" ] && grep -qxF "$extras" "$stamp"; then
        say "environment: $venv is up to date"
        return
    fi
    say "environment: installing razordeploy[$extras] into $venv (the first time this downloads PyTorch: minutes)"
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check \
        -c "$repository/requirements/constraints.txt" -e "$repository[$extras]" ||
        fail "pip could not install razordeploy[$extras]; what it said is above"
    if [ "$(head -n 1 "$stamp" 2>/dev/null)" != "$key" ]; then
        printf '%s\n' "$key" >"$stamp"
    fi
    printf '%s\n' "$extras" >>"$stamp"
}
