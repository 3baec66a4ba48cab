#!/usr/bin/env python3
"""Shows that the batteries would find what they are for: switches on one planted mistake after the other (debug builds only,
`crates/faults/src/mistakes.rs`) and runs the checks that must fail then.

    ./test --planted            every mistake
    ./test --planted NAME…      only these

Each row names the cargo arguments of the check. A check that fails without any mistake counts for nothing, so every check is
run once without one first. A mistake counts as found when its check fails in a test, not when it cannot be built or is killed
by the time limit.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIME_MAX_SECONDS = 300
MISTAKES_FILE = ROOT / "crates" / "faults" / "src" / "mistakes.rs"


def listed():
    """The mistakes with their checks: `("name", "cargo test arguments")` rows in the source."""
    text = MISTAKES_FILE.read_text(encoding="utf-8")
    return re.findall(r'// check: (.+)\n\s*"([a-z0-9-]+)"', text)


def run(check, mistake=None):
    """Runs one check; answers whether a test of it failed, whether all passed, how long it took, and what it printed. With a mistake
    it ends at the first test that fails: others may wait for long for what the mistake lost."""
    environment = dict(os.environ)
    environment.pop("CONCORD_PLANTED", None)
    if mistake:
        environment["CONCORD_PLANTED"] = mistake
    began = time.monotonic()
    command = ["cargo", "test", "--locked", "--quiet", *check.split()]
    # A session of its own, so that the tests end with cargo; servers that they started end with them.
    running = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    over_time = threading.Timer(TIME_MAX_SECONDS, os.killpg, (running.pid, signal.SIGKILL))
    over_time.start()
    printed, failed = [], False
    try:
        for line in running.stdout:
            printed.append(line)
            failed = failed or re.search(r"--- FAILED|test result: FAILED", line) is not None
            if failed and mistake:
                os.killpg(running.pid, signal.SIGKILL)
                break
    finally:
        over_time.cancel()
        code = running.wait()
    text = "".join(printed)
    ran = re.search(r"test result: ok\. (\d+) passed", text)
    passed = code == 0 and ran is not None and int(ran.group(1)) > 0
    return failed, passed, time.monotonic() - began, text


def main():
    rows = listed()
    wanted = set(sys.argv[1:])
    unknown = wanted - {mistake for _, mistake in rows}
    if unknown:
        sys.exit(f"no planted mistake is called {', '.join(sorted(unknown))}; see {MISTAKES_FILE.relative_to(ROOT)}")
    rows = [row for row in rows if not wanted or row[1] in wanted]
    sound = {}
    for check in dict.fromkeys(check for check, _ in rows):
        _, passed, seconds, printed = run(check)
        sound[check] = passed
        print(f"without a mistake  {'passes' if passed else 'FAILS'}  {seconds:6.1f} s  cargo test {check}", flush=True)
        if not passed:
            print(printed[-3000:])
    found = 0
    for check, mistake in rows:
        failed, _, seconds, printed = run(check, mistake)
        is_found = failed and sound[check]
        found += is_found
        print(f"{mistake:32} {'found' if is_found else 'NOT FOUND':9} {seconds:6.1f} s  cargo test {check}", flush=True)
        if not is_found:
            print("\n".join(printed.splitlines()[-15:]))
    print(f"found {found} of {len(rows)} planted mistakes")
    sys.exit(0 if found == len(rows) else 1)


if __name__ == "__main__":
    main()
