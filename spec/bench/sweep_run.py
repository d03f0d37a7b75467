"""Runs a command and prints, after its output, its wall time in microseconds and its most memory in KiB: all of it, or with
--own what is its own, without the pages of mapped files, which the kernel takes back when it needs them."""
import os
import sys
import time

own = sys.argv[1] == "--own"
command = sys.argv[2:] if own else sys.argv[1:]


def own_kib(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            return next((int(line.split()[1]) for line in status if line.startswith("RssAnon:")), 0)
    except OSError:
        return 0


begun = time.perf_counter()
pid = os.posix_spawnp(command[0], command, os.environ)
most, ended = 0, 0
while own and not ended:
    most = max(most, own_kib(pid))
    time.sleep(0.005)
    ended, status, usage = os.wait4(pid, os.WNOHANG)
if not ended:
    _, status, usage = os.wait4(pid, 0)
elapsed = time.perf_counter() - begun
sys.stdout.flush()
print(int(elapsed * 1e6), most if own else usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
