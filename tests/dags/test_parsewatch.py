"""Who is blamed for what happens while a DAG file is read. In a process of its own: audit hooks stay for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = sysconfig.get_path("purelib")
PROBE = """
import json, sys, threading
from mayfly.airflow.parsewatch import Watch

def call(code, file, **names):  # as if it stood in that file
    exec(compile(code, file, "exec"), names)

def function(code, file):
    space = {}
    exec(compile("def f(run):\\n    run()\\n", file, "exec"), space)
    return lambda: space["f"](lambda: exec(code))

watch = Watch("/dags/x.py", own=["/own/"])
provider, library, helper = (f"{INSTALLED}/airflow/providers/p.py", f"{INSTALLED}/lib/l.py", "/dags/help.py")
for file in (provider, library, helper):
    for number, code in ((1, "import wave, mailbox.x"), (2, "import dask.nothing"), (3, "open('/none/x', 'w')")):
        run = lambda: call(f"try:\\n    {code}\\nexcept Exception: pass", file)
        before = {provider: 9, library: 19, helper: 29}[file] + number
        call("\\n" * before + "run()", "/dags/x.py", run=run)
for place in ("/own/x", "/dev/null", "/dags/__pycache__/x.pyc"):
    call(f"try:\\n    open('{place}', 'w')\\nexcept OSError: pass", "/dags/x.py")
call("open(__import__('os').devnull)", "/dags/x.py")
try:
    open("/none/of/its/business", "w")
except OSError:
    pass
def in_thread():
    try:
        open("/none/thread", "w")
    except OSError:
        pass
thread = threading.Thread(target=in_thread); thread.start(); thread.join()
later = function("open('/none/y', 'w')", library)
call("try:\\n    later()\\nexcept OSError: pass", "/dags/x.py", later=later)
print(json.dumps({"work": [[d.line, d.what, d.where] for d in watch.work.values()],
                  "imports": [[d.line, d.what, d.where] for d in watch.imports.values()]}))
"""


def test_blame() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"INSTALLED = {INSTALLED!r}\n{PROBE}"],
        capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "plugins")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # Airflow's providers may import what they need, other libraries and the user's own modules not.
    assert found["imports"] == [[22, "dask", ""], [32, "dask", "help.py"]]
    # An installed package may do things when it is imported (its <module>), not when it is called.
    assert found["work"] == [
        [33, "writes /none/x", "help.py"],
        [None, "writes /none/thread", "a thread"],
        [2, "writes /none/y", ""],
    ]
