"""A proxy in front of a PostgreSQL server's socket, which loses a COMMIT on its way.

Usage: pg_proxy.py DIR SOCKET: listens on DIR/.s.PGSQL.5432; DIR/mode is read at each step:
  pass     all goes through
  cut N    the Nth COMMIT from now on does not reach the server
  lose N   the Nth COMMIT reaches it, and its answer does not come back
Then the mode is "away": no connection is taken until DIR/mode says otherwise.
"""
import os
import re
import select
import socket
import sys
import threading

where, server = sys.argv[1:]


def mode():
    with open(where + "/mode", encoding="ascii") as file:
        return file.read()


lock = threading.Lock()
counted = {"mode": "pass", "commits": 0}


def is_due(what):
    """A COMMIT that goes this way: whether it is the one to be lost."""
    with lock:
        now = mode()
        if counted["mode"] != now:
            counted.update(mode=now, commits=0)
        counted["commits"] += now.startswith(what)
        return now == "%s %d" % (what, counted["commits"])


def be_away():
    with open(where + "/mode.new", "w", encoding="ascii") as file:
        file.write("away")
    os.rename(where + "/mode.new", where + "/mode")


class Link:
    """One connection. A COMMIT is known by the text or the name under which it was prepared."""

    def __init__(self, client):
        self.client = client
        self.server = socket.socket(socket.AF_UNIX)
        self.server.connect(server)
        self.names = []

    def commits(self, data):
        for name in re.findall(rb"([^\0]*)\0COMMIT\0", data):
            self.names.append(name[name.rfind(b"m"):])
        return b"\0COMMIT\0" in data or any(b"\0" + name + b"\0" in data for name in self.names)

    def step(self, ready):
        if self.client in ready:
            data = self.client.recv(1 << 20)
            if self.commits(data) and is_due("cut"):
                be_away()
                return False
            self.server.sendall(data)
            if not data:
                return False
        if self.server in ready:
            data = self.server.recv(1 << 20)
            if b"COMMIT\0" in data and is_due("lose"):
                be_away()
                return False
            self.client.sendall(data)
            return data != b""
        return True

    def run(self):
        try:
            while mode() != "away" and self.step(select.select([self.client, self.server], [], [], 0.05)[0]):
                pass
        except OSError:
            pass
        self.client.close()
        self.server.close()


listening = socket.socket(socket.AF_UNIX)
listening.bind(where + "/.s.PGSQL.5432")
listening.listen(64)
while True:
    sock = listening.accept()[0]
    if mode() == "away":
        sock.close()
    else:
        threading.Thread(target=Link(sock).run, daemon=True).start()
