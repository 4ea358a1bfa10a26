#!/usr/bin/env bash
# check_tensorrt_types.sh [VERSION...]: the TensorRT backend against the real bindings, without a GPU. The bindings are
# imported beside empty stand-ins of the libraries, stubs are written of what they define, and mypy reads those.
# Default versions: 10.13.3.9.post1 and 11.4.0.106. RAZORDEPLOY_VENV: an environment with razordeploy[dev]. Needs gcc.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
[ $# -gt 0 ] || set -- 10.13.3.9.post1 11.4.0.106
python=$venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

for version in "$@"; do
    major=${version%%.*} folder=$work/$version
    mkdir -p "$folder/libraries" "$folder/stubs"
    "$python" -m pip -q --disable-pip-version-check install --no-deps --target "$folder/package" "tensorrt-cu12-bindings==$version"
    cp "$folder"/package/tensorrt_bindings/tensorrt.so "$folder/"
    # Empty functions under every name that is missing, until the module loads.
    : >"$folder/empty.c"
    while :; do
        for name in nvinfer nvonnxparser nvinfer_plugin; do
            gcc -shared -fPIC -w -o "$folder/libraries/lib$name.so.$major" "$folder/empty.c"
        done
        missing=$(cd "$folder" && LD_LIBRARY_PATH=libraries "$python" -c 'import tensorrt' 2>&1 | sed -n 's/.*undefined symbol: //p' || true)
        [ -n "$missing" ] || break
        printf 'void* %s(void) { return 0; }\n' "$missing" >>"$folder/empty.c"
    done
    (cd "$folder" && LD_LIBRARY_PATH=libraries PYTHONPATH=. "$(dirname "$python")/stubgen" -q --inspect-mode -m tensorrt -o stubs)
    "$python" - "$folder/stubs/tensorrt.pyi" <<'PYTHON'
import pathlib, re, sys

path = pathlib.Path(sys.argv[1])
text = path.read_text()


def defaults(match):
    """Arguments behind one with a default need one too."""
    seen, arguments = False, []
    for argument in match[2].split(", "):
        seen = seen or "= ..." in argument
        arguments.append(f"{argument} = ..." if seen and "=" not in argument and "*" not in argument else argument)
    return match[1] + ", ".join(arguments) + match[3]


text = re.sub(r"(def \w+\()([^()]*)(\))", defaults, text)
# What the stub generator cannot see: the sequence and the buffer protocol, and the package's own __init__.
text = re.sub(r"(class Dims:\n)", r"\1    def __iter__(self) -> typing.Iterator[int]: ...\n", text)
text = re.sub(r"(class IHostMemory:\n)", r"\1    def __buffer__(self, flags: int, /) -> memoryview: ...\n", text)
path.write_text("import typing\n" + text + "\n__version__: str\ndef nptype(trt_type: DataType) -> type: ...\n")
PYTHON
    cat >"$folder/mypy.ini" <<'INI'
[mypy]
strict = true
warn_return_any = false
disallow_any_generics = false
disallow_subclassing_any = false
disallow_untyped_calls = false
follow_imports = silent
[mypy-tensorrt]
ignore_errors = true
[mypy-cuda.*,onnxruntime.*,onnxscript.*]
ignore_missing_imports = true
INI
    say "TensorRT $version: $(grep -c '^class ' "$folder/stubs/tensorrt.pyi") classes"
    (cd "$repository" && MYPYPATH=$folder/stubs "$python" -m mypy --config-file "$folder/mypy.ini" \
        --cache-dir "$folder/cache" razordeploy/backends/tensorrt) || failed=1
done
exit "$failed"
