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
import subprocess
import sys
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
    """Runs one check; answers whether a test of it failed, how long it took, and what it printed last."""
    environment = dict(os.environ)
    environment.pop("CONCORD_PLANTED", None)
    if mistake:
        environment["CONCORD_PLANTED"] = mistake
    began = time.monotonic()
    command = ["cargo", "test", "--locked", "--quiet", *check.split()]
    try:
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIME_MAX_SECONDS, check=False
        )
        printed, code = ended.stdout + ended.stderr, ended.returncode
    except subprocess.TimeoutExpired as expired:
        printed, code = (expired.stdout or b"").decode(errors="replace") + "\ntime limit", None
    ran = re.search(r"test result: (ok|FAILED)\. (\d+) passed; (\d+) failed", printed)
    failed = code not in (0, None) and "test result: FAILED" in printed
    passed = code == 0 and ran is not None and int(ran.group(2)) > 0
    return failed, passed, time.monotonic() - began, printed


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
