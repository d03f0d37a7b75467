"""A receiver of the relay, which does with each event what the event's prompt says.

Usage: sink.py DIR.  DIR/port gets the port; DIR/log a line "begin ID CONNECTION" for each request and "end ID
CONNECTION" just before its answer.

Prompts: "after N" answers when N others have been answered; "together N" when N such requests are here at once;
"wait S" after S seconds; "alone S" takes S seconds, in which no other of these is looked at; "status N" answers N;
"die" closes the connection; "once" closes it behind the answer, without a word of it; "kill N" kills the process whose
number is in DIR/pid when N others have been answered; others are answered at once.
"""
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

where = sys.argv[1]
change = threading.Condition()
alone = threading.Lock()
together, answered, connections = 0, 0, 0
LIMIT = 20


def note(word, event, connection):
    with open(where + "/log", "a", encoding="ascii") as log:
        log.write("%s %s %d\n" % (word, event, connection))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        global connections
        with change:
            connections += 1
            self.number = connections
        super().setup()
        self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY

    def log_message(self, *args):
        pass

    def act(self, word, number):
        global together
        if word == "after":
            with change:
                change.wait_for(lambda: answered >= int(number), LIMIT)
        elif word == "together":
            with change:
                together += 1
                change.notify_all()
                number = int(number)
                batch = (together - 1) // number
                change.wait_for(lambda: together >= (batch + 1) * number, LIMIT)
        elif word == "wait":
            time.sleep(float(number))
        elif word == "alone":
            with alone:
                time.sleep(float(number))
        elif word == "kill":
            with change:
                change.wait_for(lambda: answered >= int(number), LIMIT)
            with open(where + "/pid", encoding="ascii") as file:
                pid = int(file.read())
            os.remove(where + "/pid")
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)

    def do_POST(self):
        global answered
        event = self.headers["webhook-id"]
        body = self.rfile.read(int(self.headers["content-length"]))
        word, _, number = json.loads(body)["data"]["prompt"].partition(" ")
        with change:
            note("begin", event, self.number)
        if word != "kill" or os.path.exists(where + "/pid"):
            self.act(word, number)
        with change:
            if word != "die":
                answered += 1
                note("end", event, self.number)
            change.notify_all()
        if word == "die":
            self.close_connection = True
            return
        self.send_response(int(number) if word == "status" else 200)
        if word == "status" and number in ("429", "503"):
            self.send_header("Retry-After", "100")
        self.send_header("Content-Length", "0")
        self.end_headers()
        if word == "once":
            self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("127.0.0.1", 0), Handler)
with open(where + "/port.new", "w", encoding="ascii") as file:
    file.write("%d\n" % server.server_address[1])
os.rename(where + "/port.new", where + "/port")
server.serve_forever()
