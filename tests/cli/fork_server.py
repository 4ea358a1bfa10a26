"""Runs the command line in a fresh process per request, without importing torch each time.

Reads one JSON request a line; answers with the child's process id at once and with its exit code once it ended.
"""

import json
import os
import sys
import warnings

import mmengine.config  # noqa: F401
import onnxscript  # noqa: F401
import torch.export  # noqa: F401
import torch.onnx  # noqa: F401

import razordeploy.cli.main
import razordeploy.cli.measure
import razordeploy.cli.ptq
import razordeploy.cli.search  # noqa: F401
import razordeploy.report.html  # noqa: F401


def child(request):
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    sys.path.insert(0, request["cwd"])
    for stream, fd in (("out", 1), ("err", 2)):
        target = os.open(request[stream], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, fd)
    os.close(0)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*pkg_resources.*")
    # mmengine's Runner imports what torch itself has deprecated.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch|mmengine")
    code = 1
    try:
        exec(request["before"], {"__name__": "before"})
        razordeploy.cli.main.main(request["argv"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def answer(number):
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if not pid:
        child(request)
    answer(pid)
    answer(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
