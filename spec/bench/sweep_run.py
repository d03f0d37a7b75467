"""Runs a command and prints, after its output, its wall time in microseconds and its most memory in KiB."""
import os
import sys
import time

begun = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
elapsed = time.perf_counter() - begun
sys.stdout.flush()
print(int(elapsed * 1e6), usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
