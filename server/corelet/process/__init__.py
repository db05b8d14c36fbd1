"""The process around a worker: its sockets, its signals, the order in which it starts and ends."""
