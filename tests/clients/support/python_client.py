"""Clients of python-socketio, driven by lines of JSON: commands on stdin, what happens to each client on stdout."""

import json
import os
import queue
import sys
import threading

import engineio
import socketio
from engineio import packet

printing = threading.Lock()


def tell(**fact):
    with printing:
        sys.stdout.write(json.dumps(fact) + "\n")
        sys.stdout.flush()


class Queue(queue.Queue):
    """What an engine is about to send. Its reader ends it with None when it stops."""

    Empty = queue.Empty

    def __init__(self, engine):
        super().__init__()
        self.engine = engine

    def put(self, item, *args, **options):
        super().put(item, *args, **options)
        if item is None:
            tell(client=self.engine.number, fact="stopping")


class Engine(engineio.Client):
    """Hands messages over one after the other, where the original starts a thread for each."""

    def create_queue(self):
        return Queue(self)

    def _trigger_event(self, event, *args, **options):
        options["run_async"] = False
        return super()._trigger_event(event, *args, **options)

    def _receive_packet(self, pkt):
        super()._receive_packet(pkt)
        if pkt.packet_type == packet.PONG:
            tell(client=self.number, fact="pong")

    def disconnect(self, abort=False):
        """Posts what is queued before it goes. The original's writer stops at once if it is not waiting for more just
        then: such a client leaves without a word, and stays in its rooms until its ping time-out."""
        if self.state == "connected" and self.current_transport == "polling":
            self._send_packet(packet.Packet(packet.CLOSE))
            self.queue.join()
        super().disconnect(abort)


class Client(socketio.Client):
    def __init__(self, number, **options):
        super().__init__(**options)
        self.number = self.eio.number = number
        self.connects = 0

    def _engineio_client_class(self):
        return Engine

    def _trigger_event(self, event, namespace, *args):
        if event == "connect":
            self.connects += 1
            tell(client=self.number, fact="connect")
            if self.connects > 1:
                tell(client=self.number, fact="reconnect")
        elif event in ("disconnect", "connect_error"):
            tell(client=self.number, fact=event)
        else:
            tell(client=self.number, event=[event, *args])

    def open(self, url, transports):
        try:
            self.connect(url, transports=transports)
        except socketio.exceptions.ConnectionError:
            # It was told by then.
            pass

    def send(self, args, ack):
        event, *rest = args
        answer = None if ack is None else lambda *got: tell(client=self.number, ack=ack, args=got)
        self.emit(event, tuple(rest), callback=answer)

    def close(self):
        self.reconnection = False
        self._reconnect_abort.set()
        self.disconnect()


def main():
    clients = {}
    for line in sys.stdin:
        command = json.loads(line)
        number, do = command["client"], command["do"]
        if do == "open":
            clients[number] = Client(number, **command["options"])
            work = clients[number].open, (command["url"], command["transports"])
        elif do == "send":
            # Here, so that what is sent keeps its order.
            clients[number].send(command["args"], command["ack"])
            continue
        else:
            work = clients[number].close, ()
        threading.Thread(target=work[0], args=work[1], daemon=True).start()
    os._exit(0)


main()
